-- tick: write down how far a schedule has come; never back, whoever is late.
-- KEYS: 1 schedules
-- ARGV: 1 the schedule's field, 2 time of the tick (ms)
-- Returns: {1 written | 0 it has come as far already, now}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '-1') >= tonumber(ARGV[2]) then return {0, now} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {1, now}
