-- dispatch: send an attempt out (again), if its record is still the one expected.
-- KEYS: 1 run, 2 due, 3 sequence
-- ARGV: transaction, prefix of the sent keys, expected record, then the dispatch as `send` takes it (11 values)
-- Returns: {1 sent | 0 somebody was faster, now}
--#include apply
local tid, sent = ARGV[1], ARGV[2]
local step = ARGV[4]
if redis.call('HGET', KEYS[1], 'l:' .. step) ~= ARGV[3] then return {0, now} end
release(KEYS[1], KEYS[2], sent, tid, step, ARGV[3])
redis.call('HSET', KEYS[1], 'l:' .. step, send(KEYS[2], KEYS[3], sent, tid, {unpack(ARGV, 4, 14)}))
return {1, now}
