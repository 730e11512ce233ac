-- dispatch: send an attempt out (again), if its record is still the one expected.
-- KEYS: 1 run, 2 due, 3 sequence
-- ARGV: run, prefix of the sent keys, expected record, then the dispatch as `send` takes it (11 values); 15 attempt key, if
--       it was begun
-- Returns: {1 sent | 0 somebody was faster, now}
--#include identity
--#include apply
local who, sent = ARGV[1], ARGV[2]
local step = ARGV[4]
local head = redis.call('HMGET', KEYS[1], 'l:' .. step, 'nonce')
if head[1] ~= ARGV[3] or not is(who, head[2]) then return {0, now} end
release(KEYS[1], KEYS[2], sent, who, step, ARGV[3])
redis.call('HSET', KEYS[1], 'l:' .. step, send(KEYS[2], KEYS[3], sent, who, {unpack(ARGV, 4, 14)}))
if ARGV[15] then redis.call('HSET', KEYS[1], 'b:' .. step, ARGV[15]) end
return {1, now}
