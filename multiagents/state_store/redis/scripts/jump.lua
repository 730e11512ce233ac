-- jump: what is done when the server's clock has been set. Included by `take_due`; not a script of its own.
-- KEYS and ARGV as there; it takes in `now`, `lease`, `at` (what the partition's meta says) and `int`.
--
-- What was to be looked at in an hour would be so in an hour and as much as the clock went back, or at once where it was set
-- forward. So all of it is put aside, whatever its number, and comes back page by page, by as much earlier or later. What
-- was written after the clock was set stays.
local PAGE, NOBODYS_LOSS = 500, 1000

local function earlier(ms, by)
  return tonumber(ms) > 0 and int(math.max(1, ms - by)) or '0'
end

-- A record of an attempt, as it would have been written by the clock of now.
local function earlier_record(record, by)
  local head, rest = string.match(record, '^(%w+|%w|)(.*)$')
  if string.sub(head, -2) == 'c|' then
    local owner, claimed, deadline, until_, beat = string.match(rest, '^([^|]*)|(%d+)|(%d+)|(%d+)|(.*)$')
    return head .. table.concat({owner, earlier(claimed, by), earlier(deadline, by), earlier(until_, by), beat}, '|')
  end
  local since, first, close, number, target = string.match(rest, '^(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
  if string.find('wz', string.sub(head, -2, -2), 1, true) then number = earlier(number, by) end
  return head .. table.concat({earlier(since, by), earlier(first, by), earlier(close, by), number, target}, '|')
end

-- The record that an entry is about, its key and field, when it was written, and whether its message waits in a list.
local function record_for(member)
  local who, tid, step = string.match(member, '^%l|(([^|~]*)[^|]*)|(.*)|%w+$')
  if not tid then return end
  local key, field = ARGV[4] .. tid, 'l:' .. step
  local record = redis.pcall('HGET', key, field)
  if type(record) ~= 'string' then return end
  local since = string.match(record, '^%w+|c|[^|]*|(%d+)|%d+|%d+|%d+|') or string.match(record, '^%w+|%w|(%d+)|%d+|%d+|%d+|')
  if not since then return end
  local list = string.match(record, '^%w+|s|%d+|%d+|%d+|%d+|(.*)$')
  local waits = list and redis.call('ZSCORE', ARGV[3] .. list, 'a' .. string.sub(member, 2))
  return record, key, field, tonumber(since), waits
end

-- Whether a run's deadline is a moment that somebody has named, and no time after its start.
local function is_a_moment(member)
  local deadline = redis.pcall('HGET', ARGV[4] .. string.match(member, '^t|([^~]*)'), 'deadline')
  return type(deadline) == 'string' and deadline ~= ''
end

-- by: how much earlier (below 0: later); fresh: what was written since then was written after the clock was set.
-- Returns how many are still aside.
local function page(by, fresh)
  local found = redis.call('ZRANGE', KEYS[4], 0, PAGE - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local member, to = found[i], earlier(found[i + 1], by)
    local kind = string.sub(member, 1, 1)
    local record, key, field, since, waits
    if kind == 'a' or kind == 'q' then record, key, field, since, waits = record_for(member) end
    redis.call('ZREM', KEYS[4], member)
    if (record and since >= fresh and since <= now) or (kind == 't' and is_a_moment(member)) then
      to = found[i + 1]
    elseif record and (kind == 'a' or waits) then
      redis.call('HSET', key, field, earlier_record(record, by))
    end
    -- Whoever renewed his lease after the clock was set has it for no longer than a lease.
    if kind == 'r' or (kind == 'a' and record and string.find(record, '^%w+|c|')) then
      to = int(math.min(tonumber(to), now + lease))
    end
    local is_first = redis.call('ZADD', KEYS[1], 'NX', to, member) == 1
    local lock = is_first and string.match(member, '^k|(.*)$')
    local ends = lock and redis.pcall('HGET', ARGV[9] .. lock, 'until')
    if type(ends) == 'string' then redis.call('HSET', ARGV[9] .. lock, 'until', earlier(ends, by)) end
  end
  return #found == 2 * PAGE and redis.call('ZCARD', KEYS[4]) or 0
end

-- ahead: by how much whoever asks has found the clock to have been set forward since the last sweep
-- elapsed: how long that really is ago; nil if he cannot tell
-- Returns by how much the clock was set since then (below 0: back), and whether there is more to be brought back.
local function jump(ahead, elapsed)
  local by, back = tonumber(at.back or 0), math.max(0, tonumber(at.swept or now) - now)
  local set = ahead - back
  if math.abs(set) > NOBODYS_LOSS then
    while by ~= 0 and page(by, tonumber(at.fresh or now)) > 0 do end
    if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[4]) end
    by, at.swept = -set, now - (elapsed or 0)
    at.fresh = now - (elapsed or lease / 3) - NOBODYS_LOSS
    redis.call('HSET', KEYS[2], 'back', int(by), 'fresh', int(at.fresh))
    redis.call('HDEL', KEYS[2], 'grace', 'looked', 'wakes')
    at.grace, at.looked, at.wakes = nil, nil, nil
    if set > 0 then -- what is not in `due`, the slots of limits, has run out as after an outage
      at.grace = now + lease
      redis.call('HSET', KEYS[2], 'grace', int(at.grace))
    end
  else
    set = 0
  end
  local left = by ~= 0 and page(by, tonumber(at.fresh or now)) or 0
  if by ~= 0 and left == 0 then redis.call('HDEL', KEYS[2], 'back', 'fresh') end
  return set, left > 0
end
