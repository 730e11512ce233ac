-- hold: whoever has taken messages and not begun with them says so, so that they are not taken for lost.
-- KEYS: 1 due
-- ARGV: 1 lease (ms), 2 prefix of the run keys, then run, step and attempt key of each
-- Returns: {how many of them still wait to be claimed}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local held = 0
for i = 3, #ARGV, 3 do
  local who, step, attempt_key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local head = redis.pcall('HMGET', ARGV[2] .. id_of(who), 'l:' .. step, 'nonce')
  local record = is(who, head[2]) and head[1]
  -- Pushed, published, or a link; what was given a time or an owner meanwhile is looked after by others.
  local waiting, delivery = string.match(type(record) == 'string' and record or '', '^(%w+)|([slo])|')
  if waiting == attempt_key then
    held = held + 1
    redis.call('ZADD', KEYS[1], 'XX', 'GT', now + ARGV[1], 'a|' .. who .. '|' .. step .. '|' .. attempt_key)
  end
end
return {held}
