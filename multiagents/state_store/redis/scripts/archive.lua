-- archive: drop the oldest events of a run, which are in the archive by now.
-- KEYS: 1 run, 2 history
-- ARGV: 1 run, 2 how many had been dropped when they were read, 3 how many to drop
-- Returns: {1 dropped | 0 somebody was faster, or there is no such run}
--#include identity
local head = redis.call('HMGET', KEYS[1], 'v', 'archived', 'nonce')
local same = head[1] and is(ARGV[1], head[3])
if not same or tonumber(head[2] or 0) ~= tonumber(ARGV[2]) then return {0} end
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
redis.call('HSET', KEYS[1], 'archived', string.format('%.0f', ARGV[2] + ARGV[3]))
return {1}
