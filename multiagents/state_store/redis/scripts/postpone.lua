-- postpone: look at a due entry at another time, if it is still there.
-- KEYS: 1 due
-- ARGV: 1 the entry, 2 ms from now
-- Returns: {1 it is there | 0 it is gone, now}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {0, now} end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return {1, now}
