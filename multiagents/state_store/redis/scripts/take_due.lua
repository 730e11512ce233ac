-- take_due: lease what is due, so that any number of sweepers may ask.
-- KEYS: 1 due, 2 meta, 3 sequence, 4 due.before
-- ARGV: 1 how many at most, 2 lease (ms), 3 prefix of the sent keys, 4 prefix of the run keys, 5 partition, 6 who asks, if
--       he would wake whenever something is due (empty: not he), 7 for how many ms nobody else has to, 8 what names of
--       lists end with in which starts wait (empty: they wait in none of their own), 9 prefix of the lock keys, 10 what
--       he takes the time to be (empty: he cannot tell), 11 the last sweep that he has been told of (empty: none), and
--       12 by how much he has found the clock to have been set forward since
-- Returns: {now, ms until the next entry is due (-1 none, or somebody else wakes for it), ms by which the clock was found
--          to have been set since the last sweep (below 0: back), member, member, ...}
--          or {now, -2, time of the last sweep}: he takes it to be earlier. Nothing was done; he is to say what he makes of it
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end
local due, lease = KEYS[1], tonumber(ARGV[2])
local names = {'swept', 'grace', 'looked', 'cursor', 'waker', 'wakes', 'back', 'fresh'}
local at = {}
for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do at[names[i]] = value or nil end
--#include jump
--#include lists
-- A clock that was set forward looks as an outage does. Only who has a clock of his own can tell them apart, and only after
-- he has this answer, which may have taken long.
local expected = tonumber(ARGV[10])
local doubt = expected and at.swept and ARGV[11] == '' and math.min(now - expected, now - at.swept) > NOBODYS_LOSS
if doubt then return {now, -2, tonumber(at.swept)} end
local set, more = jump(ARGV[11] == at.swept and tonumber(ARGV[12]) or 0, expected and at.swept and math.max(0, expected - at.swept))

-- One of those who ask wakes whenever something is due; the others look now and then. Whoever asks next takes his place, if
-- he has not asked for a while.
local wakes = ARGV[6] == ''
if not wakes then
  wakes = not at.waker or at.waker == ARGV[6] or tonumber(at.wakes or 0) <= now
  if wakes then redis.call('HSET', KEYS[2], 'waker', ARGV[6], 'wakes', int(now + ARGV[7])) end
end
redis.call('HSET', KEYS[2], 'swept', int(now))

-- After an outage every lease has run out without anybody having died: extend each once. One that was extended and not
-- renewed since ends where it was extended to, and is over then: sweeps that are merely slow do not keep the dead alive.
local extended = tonumber(at.grace or 0)
local grace = extended
if at.swept and now - at.swept > lease / 3 and now >= extended then
  grace = now + lease
  redis.call('HSET', KEYS[2], 'grace', int(grace))
end

-- A page of the lists at a time, however many there are.
if now - (at.looked or 0) >= 500 then
  local found = redis.call('HSCAN', KEYS[3], at.cursor or '0', 'COUNT', 100)
  for i = 1, #found[2], 2 do if found[2][i] ~= '' then look(found[2][i]) end end -- '' is `tidy`'s, no list
  redis.call('HSET', KEYS[2], 'looked', int(now), 'cursor', found[1])
end

local out = {now, -1, set}
local found = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #found, 2 do
  local member, score = found[i], tonumber(found[i + 1])
  local hidden = now + lease
  -- A score of 0 is `expire`'s: that worker is known to be dead.
  if grace > now and score > 0 and score ~= extended and string.sub(member, 1, 2) == 'a|' then
    local tid, step, attempt_key = string.match(member, '^a|([^|~]*)[^|]*|(.*)|(%w+)$')
    -- What cannot be read is handed out: whoever handles it says so, and nobody else waits for that.
    local record = attempt_key and redis.pcall('HGET', ARGV[4] .. tid, 'l:' .. step)
    if type(record) == 'string' and string.sub(record, 1, #attempt_key + 3) == attempt_key .. '|c|' then
      redis.call('ZADD', due, grace, member)
      hidden = nil
    end
  end
  if hidden then
    redis.call('ZADD', due, hidden, member)
    out[#out + 1] = member
  end
end
local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if more then out[2] = 0 elseif head[2] and wakes then out[2] = math.max(0, tonumber(head[2]) - now) end
return out
