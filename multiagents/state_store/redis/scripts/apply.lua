-- apply: what `start`, `commit` and `dispatch` share. Included by them; not a script of its own.
--
-- A record of an attempt in flight is the field l:<step> of the run (README.md has all formats):
--   unclaimed  <attempt key>|<delivery>|<since>|<first>|<close>|<number>|<target>
--   claimed    <attempt key>|c|<owner>|<claimed>|<deadline>|<beat until>|<beat>|<worker>
-- The number is, of a message, how often it was sent (0: offered again, as a worker did not know it); of a timer or a
-- sleep, the time it is due.
-- Its entry in due (or, while its message waits in a broker list, in sent:<list>) is a|<run>|<step>|<attempt key>.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end

local function push(list, sequence, prefix, suffix)
  local number = redis.call('HINCRBY', sequence, list, 1)
  if number == 1 then -- new, or forgotten by `tidy`: no message gets a number that an older one of its list may have
    local given = redis.call('HGET', sequence, '')
    if given then number = redis.call('HINCRBY', sequence, list, given) end
  end
  -- Where something else lies under that name, nothing is pushed and all else is done: an error here would leave half of it
  -- done. The sweep, which cannot read that list either, sends it again.
  redis.pcall('LPUSH', list, prefix .. int(number) .. suffix)
  return number
end

-- Give up an attempt's record, and everything that looks after it.
local function release(run, due, sent, who, step, record)
  local attempt_key, delivery, rest = string.match(record, '^(%w+)|(%w)|(.*)$')
  local member = 'a|' .. who .. '|' .. step .. '|' .. attempt_key
  redis.call('HDEL', run, 'l:' .. step)
  redis.call('ZREM', due, member)
  if delivery == 's' then
    redis.call('ZREM', sent .. string.match(rest, '^%d+|%d+|%d+|%d+|(.*)$'), member)
  end
end

-- Send an attempt out, and leave an entry with whoever looks after it; returns the record, which the caller writes.
-- a: step, attempt key, delivery, target, prefix, suffix, delay, first, close, start within, due (0: after the delay; of
--    a message the number of its record); for one that whoever commits it runs himself (delivery c): target his token,
--    prefix his name, delay his lease, close the limit from now
local function send(due, sequence, sent, who, a)
  local step, attempt_key, delivery, target = a[1], a[2], a[3], a[4]
  local member = 'a|' .. who .. '|' .. step .. '|' .. attempt_key
  if delivery == 'c' then
    local limit = tonumber(a[9])
    redis.call('ZADD', due, now + tonumber(a[7]), member)
    local deadline = limit > 0 and int(now + limit) or '0'
    return table.concat({attempt_key, delivery, target, int(now), deadline, '0', '0', a[5]}, '|')
  end
  local first = tonumber(a[8]) > 0 and a[8] or int(now)
  local number = '0'
  if delivery == 's' then
    number = a[11]
    redis.call('ZADD', sent .. target, push(target, sequence, a[5], a[6]), member)
  elseif delivery == 'o' then
    number = a[11]
    redis.call('ZADD', due, now + tonumber(a[7]), member)
  elseif delivery ~= 'e' then
    local at = tonumber(a[11]) > 0 and tonumber(a[11]) or now + tonumber(a[7])
    redis.call('ZADD', due, at, member)
    if delivery == 'w' or delivery == 'z' then number = int(at) end
  elseif tonumber(a[9]) > 0 then
    redis.call('ZADD', due, a[9], member)
  end
  if tonumber(a[10]) > 0 then
    redis.call('ZADD', due, now + tonumber(a[10]), 'q|' .. who .. '|' .. step .. '|' .. attempt_key)
  end
  return table.concat({attempt_key, delivery, int(now), first, a[9], number, target}, '|')
end
