-- lock: give the lock on a business key to a run, or keep its place in the line.
-- KEYS: 1 lock, 2 lock.line, 3 lock.asking, 4 meta, 5 due
-- ARGV: 1 entry in due that looks after the lock, 2 holder, 3 lease (ms, 0 without an end), 4 ms after which a waiter who
--       has not asked again is passed over, 5 token of a grant that is over, 6 ms until a lock without lease is looked at,
--       7 lease of attempts (ms)
-- Returns: {1 it has the lock | 0 it waits, now, token of who has it (0 nobody), who, how many wait before}
--#include calm
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end
local holder, lease = ARGV[2], tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'holder', 'token', 'until')
local ends = tonumber(held[3] or 0)
local over = held[2] == ARGV[5] or (ends > 0 and ends <= now and is_calm(KEYS[4], tonumber(ARGV[7]), now))
local free = not held[1] or over

if not free and held[1] == holder then -- asked again, or by another step of the run: never for less long than before
  ends = (ends > 0 and lease > 0) and math.max(ends, now + lease) or 0
  redis.call('HSET', KEYS[1], 'until', int(ends))
  return {1, now, tonumber(held[2]), holder, 0}
end

redis.call('ZADD', KEYS[2], 'NX', int(clock[1] * 1000000 + clock[2]), holder)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), holder)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('ZREM', KEYS[2], gone)
  redis.call('ZREM', KEYS[3], gone)
end
for key = 2, 3 do redis.call('PEXPIRE', KEYS[key], 600000) end -- longer than any waiter's pause
local place = redis.call('ZRANK', KEYS[2], holder)
if not free then return {0, now, tonumber(held[2]), held[1], place} end
if place > 0 then
  -- None of those before counts as waiting for longer than any waiter's pause, but by a clock that has been set back since.
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. int(now + 600000), '+inf')) do
    redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), each)
  end
  return {0, now, 0, '', place}
end

-- One count for all keys of the partition: a lock may be forgotten, and the next token of its key is larger all the same.
local token = redis.call('HINCRBY', KEYS[4], 'token', 1)
redis.call('HSET', KEYS[1], 'holder', holder, 'token', int(token), 'until', lease > 0 and int(now + lease) or '0')
redis.call('ZREM', KEYS[2], holder)
redis.call('ZREM', KEYS[3], holder)
redis.call('ZADD', KEYS[5], now + (lease > 0 and lease or tonumber(ARGV[6])), ARGV[1])
return {1, now, token, holder, 0}
