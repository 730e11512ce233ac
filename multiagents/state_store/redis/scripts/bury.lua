-- bury: keep what could not be delivered or undone, until a person has settled it.
-- KEYS: 1 dead
-- ARGV: 1 what it is known by, 2 the letter
-- Returns: {1}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {1}
