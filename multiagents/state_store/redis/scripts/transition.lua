-- transition: the part of `start` and `commit` that writes. Included by them; not a script of its own.
-- It takes in what `apply` and `attributes` have.
-- KEYS as in commit; `at` is the last ARGV read so far.
local at = 0
local function take() at = at + 1; return ARGV[at] end
local function rows(width)
  local out = {}
  for i = 1, tonumber(take()) do
    local row = {}
    for j = 1, width do row[j] = take() end
    out[i] = row
  end
  return out
end
-- The next n arguments into a key; by the thousand, because unpack fails at some thousands, half-way through a commit.
local function write(command, key, n)
  local reply
  for from = at + 1, at + n, 1000 do
    reply = redis.call(command, key, unpack(ARGV, from, math.min(from + 999, at + n)))
  end
  at = at + n
  return reply
end

-- fields: what else goes into the run's hash, in the one command that writes it
-- Returns 1 if a join was completed, or the first of what coalesces has landed, and how many events the history has now
-- (0 if none was added)
local function transition(who, sent, lease, fields)
  local run, due, tid = KEYS[1], KEYS[5], id_of(who)
  for _ = 1, take() * 2 do fields[#fields + 1] = take() end
  for _, row in ipairs(rows(1)) do redis.call('HDEL', run, row[1]) end
  write('HSET', KEYS[2], take() * 2)
  write('HDEL', KEYS[2], tonumber(take()))
  write('HSET', KEYS[3], take() * 2)
  local events = write('RPUSH', KEYS[4], tonumber(take())) or 0
  local letters = tonumber(take())
  for i = 1, letters do redis.call('ZADD', KEYS[11] .. '.since', now, ARGV[at + 2 * i - 1]) end
  write('HSET', KEYS[11], letters * 2)
  local settled = tonumber(take())
  for i = 1, settled do redis.call('ZREM', KEYS[11] .. '.since', ARGV[at + i]) end
  write('HDEL', KEYS[11], settled)
  local joined = 0
  for _, join in ipairs(rows(3)) do -- step, how many land, how many there are
    if redis.call('HINCRBY', run, 'j:' .. join[1], join[2]) >= tonumber(join[3]) then joined = 1 end
  end
  for _, dispatch in ipairs(rows(11)) do
    fields[#fields + 1] = 'l:' .. dispatch[1]
    fields[#fields + 1] = send(due, KEYS[6], sent, who, dispatch)
  end
  for from = 1, #fields, 1000 do redis.call('HSET', run, unpack(fields, from, math.min(from + 999, #fields))) end
  local landed, decided, wake = take(), take(), rows(3)
  if landed == '2' then
    -- Whoever is to decide already has this before it, or finds that the run has moved on and looks again.
    if redis.call('ZADD', due, 'NX', now + lease, 'r|' .. who) == 1 then joined = 1 end
    if joined == 0 then wake = {} end
  elseif landed == '1' or joined == 1 then
    redis.call('ZADD', due, now + lease, 'r|' .. who)
  elseif decided == '1' then
    redis.call('ZREM', due, 'r|' .. who)
  end
  for _, message in ipairs(wake) do push(message[1], KEYS[6], message[2], message[3]) end
  if take() == '1' then
    -- Indexes are in the order in which runs started, whatever became of them.
    local started = redis.call('ZSCORE', KEYS[7], tid) or now
    redis.call('ZREM', KEYS[7], tid)
    redis.call('ZREM', KEYS[8], tid)
    redis.call('ZADD', KEYS[9], started, tid)
    redis.call('ZADD', KEYS[10], started, tid)
  end
  local deadline, retention, channel, status = tonumber(take()), tonumber(take()), take(), take()
  local attributes = rows(2)
  if #attributes > 0 then
    local prefix, limit = take(), tonumber(take())
    for _, row in ipairs(attributes) do tag(run, prefix, tid, row[1], row[2], limit) end
  end
  local blobs = tonumber(take())
  if blobs > 0 then write('HSET', KEYS[12], blobs * 2) end
  if deadline > 0 then redis.call('ZADD', due, now + deadline, 't|' .. who) end
  if retention > 0 then
    -- Nothing of a run expires by itself: it would stay in the indexes. The sweep that finds this entry removes all of it.
    redis.call('ZADD', due, now + retention, 'x|' .. who)
    redis.call('ZREM', due, 't|' .. who)
    if landed == '0' then redis.call('ZREM', due, 'r|' .. who) end
    redis.call('PUBLISH', channel, status)
  elseif retention < 0 then
    redis.call('ZREM', due, 'x|' .. who)
  end
  return joined, events
end
