-- rewind: what is done when the server's clock has gone back. Included by `take_due`; not a script of its own.
-- KEYS and ARGV as there; it takes in `now`, `at` (what the partition's meta says) and `int`.
--
-- What was to be looked at in an hour would be so in an hour and as much as the clock went back. So all of it is put aside,
-- whatever its number, and comes back page by page, so much earlier. What was written of an attempt meanwhile stays.
local PAGE = 500

local function earlier(ms, by)
  return tonumber(ms) > 0 and int(math.max(1, ms - by)) or '0'
end

-- A record of an attempt, as it would have been written by the clock of now.
local function earlier_record(record, by)
  local head, rest = string.match(record, '^(%w+|%w|)(.*)$')
  if not head then return record end
  if string.sub(head, -2) == 'c|' then
    local owner, claimed, deadline, until_, beat = string.match(rest, '^([^|]*)|(%d+)|(%d+)|(%d+)|(.*)$')
    if not owner then return record end
    return head .. table.concat({owner, earlier(claimed, by), earlier(deadline, by), earlier(until_, by), beat}, '|')
  end
  local since, first, close, number, target = string.match(rest, '^(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
  if not since then return record end
  local is_time = string.find('wz', string.sub(head, -2, -2), 1, true)
  if is_time then number = earlier(number, by) end
  return head .. table.concat({earlier(since, by), earlier(first, by), earlier(close, by), number, target}, '|')
end

local function field_earlier(key, field, change, by)
  local value = redis.pcall('HGET', key, field)
  if type(value) == 'string' then redis.call('HSET', key, field, change(value, by)) end
end

-- Returns how many are still aside.
local function page(by)
  local found = redis.call('ZRANGE', KEYS[4], 0, PAGE - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local member, score = found[i], found[i + 1]
    redis.call('ZREM', KEYS[4], member)
    if redis.call('ZADD', KEYS[1], 'NX', earlier(score, by), member) == 1 then
      local tid, step = string.match(member, '^a|([^|~]*)[^|]*|(.*)|%w+$')
      local lock = string.match(member, '^k|(.*)$')
      if tid then field_earlier(ARGV[4] .. tid, 'l:' .. step, earlier_record, by) end
      if lock then field_earlier(ARGV[9] .. lock, 'until', earlier, by) end
    end
  end
  return #found == 2 * PAGE and redis.call('ZCARD', KEYS[4]) or 0
end

-- Returns by how much the clock has gone back since the last sweep, and whether there is more to be brought back.
local function rewind()
  local by, back = tonumber(at.back or 0), math.max(0, tonumber(at.swept or now) - now)
  if back > 1000 then -- less is nobody's loss
    while by > 0 and page(by) > 0 do end
    if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[4]) end
    by = back
    redis.call('HSET', KEYS[2], 'back', int(by))
    redis.call('HDEL', KEYS[2], 'grace', 'looked', 'wakes')
    at.grace, at.looked, at.wakes = nil, nil, nil
  else
    back = 0
  end
  local left = by > 0 and page(by) or 0
  if by > 0 and left == 0 then redis.call('HDEL', KEYS[2], 'back') end
  return back, left > 0
end
