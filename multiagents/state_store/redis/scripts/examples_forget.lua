-- examples_forget: drop the examples of runs that have had an id and are gone.
-- KEYS: 1 run, 2 examples of the run
-- ARGV: 1 transaction
-- Returns: {how many there were, now}
--#include identity
--#include examples
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local tag, count, there = tag_of(KEYS[1]), 0, redis.call('HMGET', KEYS[1], 'v', 'nonce')
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local who = string.match(all[i], '^([^|]*)')
  if not there[1] or not is(who, there[2]) then
    drop_examples(tag, all[i + 1], {all[i]})
    count = count + 1
  end
end
return {count, now}
