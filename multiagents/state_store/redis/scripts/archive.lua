-- archive: drop the oldest events of a run, which are in the archive by now.
-- KEYS: 1 run, 2 history
-- ARGV: 1 how many had been dropped when they were read, 2 how many to drop
-- Returns: {1 dropped | 0 somebody was faster, or there is no such run}
local dropped = redis.call('HMGET', KEYS[1], 'v', 'archived')
if not dropped[1] or tonumber(dropped[2] or 0) ~= tonumber(ARGV[1]) then return {0} end
redis.call('LTRIM', KEYS[2], ARGV[2], -1)
redis.call('HSET', KEYS[1], 'archived', string.format('%.0f', ARGV[1] + ARGV[2]))
return {1}
