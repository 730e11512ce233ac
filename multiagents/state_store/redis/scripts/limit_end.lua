-- limit_end: give back the slot of a call, and correct for how many beginnings it was counted.
-- KEYS: 1 limit (slots), 2 limit.next (when the next one is expected, us)
-- ARGV: 1 who has it, 2 by how much the next one is expected later (us; below 0: earlier)
-- Returns: {1 | 0 he has none}
local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local int = function(n) return string.format('%.0f', n) end
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return {0} end
local by = tonumber(ARGV[2])
local expected, kept = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+)|?(%d*)$')
if by > 0 or by < 0 and expected then
  -- What lies in the past already holds nobody up.
  local next_us, apart = math.max(0, tonumber(expected or now_us) + by), (tonumber(kept) or 0) + math.max(by, 0)
  local left = math.max(0, next_us - now_us) + 2 * apart
  redis.call('SET', KEYS[2], int(next_us) .. '|' .. int(apart), 'PX', int(left / 1000 + 1000))
end
return {1}
