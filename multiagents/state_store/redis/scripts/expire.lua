-- expire: make the lease of an attempt due now, because its worker is dead (no outage extends a score of 0).
-- KEYS: 1 run, 2 due
-- ARGV: 1 run, 2 step, 3 attempt key, 4 how its worker came to its end, or empty
-- Returns: {1 due now | 0 nobody holds it, now}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local prefix = ARGV[3] .. '|c|'
local head = redis.call('HMGET', KEYS[1], 'l:' .. ARGV[2], 'nonce')
local record = head[1]
if not is(ARGV[1], head[2]) then return {0, now} end
if not record or string.sub(record, 1, #prefix) ~= prefix then return {0, now} end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'x:' .. ARGV[2], ARGV[3] .. '|' .. ARGV[4]) end
redis.call('ZADD', KEYS[2], 0, 'a|' .. ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3])
return {1, now}
