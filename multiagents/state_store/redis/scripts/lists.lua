-- lists: which messages have left their lists, and which go on in another. Included by `take_due`; not a script of its own.
-- KEYS and ARGV as there; it takes in `now` and `lease`.
--
-- Messages are numbered by list. What has a lower number than the one at the consuming end has been taken out; if it is not
-- claimed within a lease, it was lost with whoever took it. What others have put there is read one message at a time, and
-- no further than this: there may be many, and large ones.
local FURTHEST, MOST_BYTES, LOST_AT_ONCE, AT_ONCE, AGED = 100, 32768, 500, 10, 3000
local sent, runs, pattern = ARGV[3], ARGV[4], '"multiagents": "' .. ARGV[5] .. ':(%d+)"'

local function next_number(list)
  local number = redis.call('HINCRBY', KEYS[3], list, 1)
  if number > 1 then return number end
  return redis.call('HINCRBY', KEYS[3], list, redis.call('HGET', KEYS[3], '') or 0) -- as in `apply`
end

-- The number nearest to the consuming end of a list, and its message; nil, and whether that was all there is.
local function nearest(list)
  local length, bytes = redis.pcall('LLEN', list), 0
  if type(length) ~= 'number' then return nil, false end -- somebody keeps something else under that name
  for i = 1, math.min(length, FURTHEST) do
    if bytes > MOST_BYTES then return nil, false end
    local message = redis.call('LINDEX', list, -i)
    local number = string.match(message, pattern)
    if number then return number, message end
    bytes = bytes + #message
  end
  return nil, length <= FURTHEST
end

-- The record of an attempt whose message waits, its run and step, for how long that does, and the attempt did before it.
local function record_of(member)
  local tid, step = string.match(member, '^a|([^|~]*)[^|]*|(.*)|%w+$')
  local record = tid and redis.pcall('HGET', runs .. tid, 'l:' .. step)
  local since, first = string.match(type(record) == 'string' and record or '', '^%w+|s|(%d+)|(%d+)|')
  if not since then return end
  -- What is still to come was written before the clock went back.
  local waited = tonumber(since) <= now and now - since or math.huge
  return record, tid, step, waited, math.max(0, since - first)
end

-- A list that does not tell: once a lease, those that have waited longest are sent again, a few; each of them waits twice as
-- long for the next time. So what was lost comes back whatever lies in the list, and what was not is not copied without end.
local function doubt(list)
  local since = redis.call('HGET', KEYS[2], 'unclear:' .. list)
  if since and tonumber(since) <= now and now - since < lease then return end
  redis.call('HSET', KEYS[2], 'unclear:' .. list, now)
  for _, member in ipairs(since and redis.call('ZRANGE', sent .. list, 0, AT_ONCE - 1) or {}) do
    local record, tid, step, waited, before = record_of(member)
    if record and waited >= math.max(lease, before) then
      -- It may wait there all the while, so it does not count as sent once more.
      local head, times, rest = string.match(record, '^(%w+|s|%d+|%d+|%d+|)(%d+)(|.*)$')
      redis.call('HSET', runs .. tid, 'l:' .. step, head .. int(math.max(1, times - 1)) .. rest)
    end
    if not record or waited >= math.max(lease, before) then
      redis.call('ZREM', sent .. list, member)
      redis.call('ZADD', KEYS[1], now, member)
    end
  end
end

-- The decision that a message of a run, of no attempt, asks for: the run's entry in due, and for how long the run is there; nil
-- where nobody has to decide any more.
local function decision_of(message)
  local tid = string.match(message, '"root_id": "([^"]*)"')
  local head = tid and redis.call('HMGET', runs .. tid, 'nonce', 'started') or {}
  if not head[2] then return end
  local member = 'r|' .. tid .. (head[1] and '~' .. head[1] or '')
  return redis.call('ZSCORE', KEYS[1], member) and member, now - head[2]
end

-- Starts wait behind what runs under way send. One that has waited long goes on among these, so that others' tasks there do
-- not starve it: a few at a time, so that an undo still passes a backlog of them.
local function rise(list)
  local suffix = ARGV[8]
  if suffix == '' or string.sub(list, -#suffix) ~= suffix then return end
  local to = string.sub(list, 1, -#suffix - 1)
  local ahead, last = redis.pcall('LLEN', to), redis.call('HGET', KEYS[2], 'risen:' .. list)
  if ahead == 0 or type(ahead) ~= 'number' then return end
  local waits_in = last and (string.sub(last, 1, 2) == 'r|' and KEYS[1] or sent .. to)
  if last and redis.call('ZSCORE', waits_in, last) then return end
  for _ = 1, AT_ONCE do
    local number, message = nearest(list)
    if not number then return end
    local member = redis.call('ZRANGEBYSCORE', sent .. list, number, number)[1]
    local record, tid, step, waited
    if member then
      record, tid, step, waited = record_of(member)
    else
      member, waited = decision_of(message)
    end
    -- What nobody waits for any more goes on as well: it would keep those behind it.
    if member and waited and waited < AGED then return end
    local new = int(next_number(to))
    redis.call('LREM', list, -1, message)
    message = string.gsub(message, pattern, '"multiagents": "' .. ARGV[5] .. ':' .. new .. '"', 1)
    message = string.gsub(message, '"priority": %d+, "body_encoding"', '"priority": 0, "body_encoding"', 1)
    redis.call('LPUSH', to, message)
    if record then
      redis.call('ZREM', sent .. list, member)
      redis.call('ZADD', sent .. to, new, member)
      redis.call('HSET', runs .. tid, 'l:' .. step, string.match(record, '^%w+|s|%d+|%d+|%d+|%d+|') .. to)
    end
    if member then redis.call('HSET', KEYS[2], 'risen:' .. list, member) end
  end
end

local function look(list)
  rise(list)
  if redis.call('ZCARD', sent .. list) == 0 then -- nobody waits for what is in it
    redis.call('HDEL', KEYS[2], 'unclear:' .. list)
    if redis.pcall('LLEN', list) == 0 then redis.call('HDEL', KEYS[2], 'risen:' .. list) end
    return
  end
  local number, all = nearest(list)
  if not number and not all then return doubt(list) end
  redis.call('HDEL', KEYS[2], 'unclear:' .. list)
  local bound = number and '(' .. number or '+inf'
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', sent .. list, '-inf', bound, 'LIMIT', 0, LOST_AT_ONCE)) do
    redis.call('ZREM', sent .. list, member)
    redis.call('ZADD', KEYS[1], now + lease, member)
  end
end
