-- bury: keep what could not be delivered or undone, until a person has settled it, or nobody has for long enough.
-- KEYS: 1 dead, 2 dead.since
-- ARGV: 1 what it is known by, 2 the letter
-- Returns: {1}
local clock = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1])
return {1}
