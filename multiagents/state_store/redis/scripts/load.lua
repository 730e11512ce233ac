-- load: the whole state of a run, with the time it was read.
-- KEYS: 1 run
-- ARGV: none
-- Returns: {now, field, value, field, value, ...}
local clock = redis.call('TIME')
local fields = redis.call('HGETALL', KEYS[1])
table.insert(fields, 1, clock[1] * 1000 + math.floor(clock[2] / 1000))
return fields
