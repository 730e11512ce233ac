-- limit: give an attempt a slot of a limit, or say when to ask again.
-- The rate is the generic cell rate algorithm in its virtual scheduling form (ITU-T Recommendation I.371, annex A): what is
-- kept is when the next one is expected; it may come half an interval early, so that who came late shifts nobody else.
-- Asked again without a slot to tell (a rate alone), it counts again; a call within an attempt always has one.
-- KEYS: 1 limit (slots), 2 limit.next (when the next one is expected, us), 3 limit.away (those turned away), 4 meta
-- ARGV: 1 attempt, 2 how many at once (0 any), 3 us between two beginnings (0 none), 4 pause where all slots are taken (ms),
--       5 1 to keep a slot whatever is so, 6 lease (ms), 7 ms between two who come again, 8 ms until they do at the latest,
--       9 for how many beginnings it counts, 10 1 of a call: it has a slot, whatever is limited
-- Returns: {1 it may run | 0 it may not, now, ms after which to ask again}
local clock = redis.call('TIME')
local now, now_us = clock[1] * 1000 + math.floor(clock[2] / 1000), clock[1] * 1000000 + clock[2]
local int = function(n) return string.format('%.0f', n) end
--#include calm
--#include slots
local attempt, most, every, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
local interval, of_a_call = every * (ARGV[9] or 1), ARGV[10] == '1'
local function hold()
  redis.call('ZADD', KEYS[1], now + lease, attempt)
  redis.call('PEXPIRE', KEYS[1], 2592000000) -- 30 days: whoever is gone by then has not been turned out by a clock
end

if ARGV[5] == '1' or redis.call('ZSCORE', KEYS[1], attempt) then
  hold()
  return {1, now, 0}
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZREM', KEYS[3], attempt)

local wait = 0
if most > 0 and redis.call('ZCARD', KEYS[1]) >= most then
  drop_over(KEYS[1], KEYS[4], lease)
  if redis.call('ZCARD', KEYS[1]) >= most then wait = math.max(1, tonumber(ARGV[4])) end
end
local next_us = now_us
if every > 0 then
  local expected, kept = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+)|?(%d*)$')
  next_us = tonumber(expected or 0)
  -- No next one is expected so late, but by a clock that has been set back since.
  local apart = tonumber(kept) or interval
  if next_us > now_us + 2 * apart then next_us = now_us + apart end
end
if next_us - every / 2 > now_us then wait = math.max(wait, math.ceil((next_us - now_us) / 1000)) end
if wait == 0 then
  if most == 0 and of_a_call then redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 3600000) end -- who is gone
  if most > 0 or of_a_call then hold() end
  if every > 0 then
    redis.call('SET', KEYS[2], int(math.max(next_us, now_us) + interval) .. '|' .. int(interval), 'PX', int(2 * interval / 1000 + 1000))
  end
  return {1, now, 0}
end

-- Behind the last of those turned away before, so that not all come again at once.
redis.call('ZREMRANGEBYSCORE', KEYS[3], '(' .. int(now + tonumber(ARGV[8])), '+inf')
local last = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local at = now + wait
if last[2] then at = math.max(at, tonumber(last[2]) + math.max(math.ceil(interval / 1000), tonumber(ARGV[7]))) end
at = math.min(at, now + tonumber(ARGV[8]))
redis.call('ZADD', KEYS[3], at, attempt)
redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[8]) + 60000)
return {0, now, at - now}
