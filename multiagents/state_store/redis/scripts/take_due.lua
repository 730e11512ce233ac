-- take_due: lease what is due, so that any number of sweepers may ask.
-- KEYS: 1 due, 2 meta, 3 sequence
-- ARGV: 1 how many at most, 2 lease (ms), 3 prefix of the sent keys, 4 prefix of the run keys, 5 partition
-- Returns: {now, ms until the next entry is due (-1 none), member, member, ...}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local due, lease = KEYS[1], tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[2], 'swept', 'grace', 'looked')
redis.call('HSET', KEYS[2], 'swept', now)

-- After an outage every lease has run out without anybody having died: extend each once. One that was extended and not
-- renewed since ends where it was extended to, and is over then: sweeps that are merely slow do not keep the dead alive.
local extended = tonumber(meta[2] or 0)
local grace = extended
if meta[1] and now - tonumber(meta[1]) > lease / 3 and now >= extended then
  grace = now + lease
  redis.call('HSET', KEYS[2], 'grace', grace)
end

-- Lost or waiting? Messages are numbered by list. What has a lower number than the one at the consuming end has been
-- taken out; if it is not claimed within a lease, it was lost with whoever took it.
if now - tonumber(meta[3] or 0) >= 500 then
  redis.call('HSET', KEYS[2], 'looked', now)
  local pattern = '"multiagents": "' .. ARGV[5] .. ':(%d+)"'
  for _, list in ipairs(redis.call('HKEYS', KEYS[3])) do -- and '', with what `tidy` keeps: no list
    local oldest, length = '+inf', list ~= '' and redis.pcall('LLEN', list)
    if type(length) ~= 'number' then length = 1001 end -- somebody keeps something else under that name
    local from = 1
    while from <= length and length ~= 1001 and from <= 1000 do
      local to = math.min(from + 49, length)
      local window = redis.call('LRANGE', list, -to, -from)
      for i = #window, 1, -1 do
        local number = string.match(window[i], pattern)
        if number then oldest = '(' .. number; break end
      end
      if oldest ~= '+inf' then break end
      from = to + 1
    end
    -- A long queue of other people's messages tells nothing yet.
    if length == 0 or oldest ~= '+inf' or from > length then
      for _, member in ipairs(redis.call('ZRANGEBYSCORE', ARGV[3] .. list, '-inf', oldest, 'LIMIT', 0, 500)) do
        redis.call('ZREM', ARGV[3] .. list, member)
        redis.call('ZADD', due, now + lease, member)
      end
    end
  end
end

local out = {now, -1}
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
if head[2] then out[2] = math.max(0, tonumber(head[2]) - now) end
return out
