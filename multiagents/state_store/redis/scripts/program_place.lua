-- program_place: say which programs of a worker are in place, unless somebody was faster.
-- KEYS: 1 programs
-- ARGV: 1 revision that this was made from, 2 current, 3 canary, 4 its share, 5 what was current before (,1,2,), 6 notes on
--       the change, 7 how many changes are remembered
-- Returns: {1 it is so | 0 somebody was faster, or a program is not kept, now}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local is = redis.call('HMGET', KEYS[1], 'revision', 'current', 'canary', 'share', 'former')
local revision = tonumber(is[1] or '0')
if revision ~= tonumber(ARGV[1]) then -- or this is sent twice
  local same = revision == ARGV[1] + 1
  for i = 2, 5 do same = same and is[i] == ARGV[i] end
  return {same and 1 or 0, now}
end
for i = 2, 3 do
  if ARGV[i] ~= '0' and redis.call('HEXISTS', KEYS[1], 'v:' .. ARGV[i]) == 0 then return {0, now} end
end
revision = revision + 1
redis.call('HSET', KEYS[1], 'revision', revision, 'current', ARGV[2], 'canary', ARGV[3], 'share', ARGV[4], 'former', ARGV[5])
redis.call('HSET', KEYS[1], 'c:' .. revision, string.format('%d|%s', now, ARGV[6]))
redis.call('HDEL', KEYS[1], 'c:' .. revision - ARGV[7])
return {1, now}
