-- tidy: drop what nobody needs any more: the numbering of broker lists in which nothing waits, and the oldest dead letters.
-- KEYS: 1 sequence, 2 dead, 3 dead.since
-- ARGV: 1 prefix of the sent keys, 2 how long a dead letter is kept (ms), 3 how many of them to drop at most
-- Returns: {how many lists were forgotten, names of the letters that went ...}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local forgotten, highest = 0, tonumber(redis.call('HGET', KEYS[1], '') or 0)
local numbers = redis.call('HGETALL', KEYS[1])
for i = 1, #numbers, 2 do
  local list, number = numbers[i], tonumber(numbers[i + 1])
  if list ~= '' and redis.call('EXISTS', list, ARGV[1] .. list) == 0 then
    redis.call('HDEL', KEYS[1], list)
    forgotten, highest = forgotten + 1, math.max(highest, number)
  end
end
if forgotten > 0 then redis.call('HSET', KEYS[1], '', string.format('%.0f', highest)) end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf', 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', KEYS[3], now, name) -- buried before the clock was set back
end
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, ARGV[3])
for _, name in ipairs(old) do
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
end
return {forgotten, unpack(old)}
