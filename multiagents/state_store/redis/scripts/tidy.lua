-- tidy: drop what nobody needs any more: the numbering of broker lists in which nothing waits.
-- KEYS: 1 sequence
-- ARGV: 1 prefix of the sent keys
-- Returns: {how many lists were forgotten}
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
return {forgotten}
