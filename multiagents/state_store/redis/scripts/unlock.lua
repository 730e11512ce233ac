-- unlock: take a lock away from who holds it under this token, with what looks after it.
-- KEYS: 1 lock, 2 due
-- ARGV: 1 entry in due that looks after the lock, 2 token
-- Returns: {1 gone | 0 another one holds it, or nobody}
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return {0} end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {1}
