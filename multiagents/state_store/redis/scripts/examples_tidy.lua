-- examples_tidy: drop examples whose time is over, and the names of workers that have none.
-- KEYS: 1 workers with examples
-- ARGV: 1 how long they are kept (ms), 2 how many of a worker go at once
-- Returns: {how many went, now}
--#include examples
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local tag, count = tag_of(KEYS[1]), 0
for _, worker in ipairs(redis.call('HKEYS', KEYS[1])) do
  local since = tag .. 'examples:' .. worker
  local old = redis.call('ZRANGEBYSCORE', since, '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
  drop_examples(tag, worker, old)
  count = count + #old
  if redis.call('EXISTS', since) == 0 then redis.call('HDEL', KEYS[1], worker) end
end
return {count, now}
