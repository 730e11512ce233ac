-- search: the runs with certain attributes, from a place on in the order of one index, newest or largest first.
-- KEYS: indexes that have all of them, in one order: the shortest is walked
-- ARGV: 1 prefix of the runs' keys, 2 how many to look at, 3 how many to find, 4-5 bounds of the index ('' none),
--       6-7 score and run after which to begin ('' the beginning), 8 workflow, 9 statuses |a|b| ('' any),
--       10 started since (ms), then for each condition: field, kind, text, low, high
-- Returns: {1 that was all | 0 there may be more, score and run last looked at, {score, run, score, run, ...}}
local runs, window, wanted, low, high, score, name, workflow, statuses, since = unpack(ARGV, 1, 10)
window, wanted, low, since = tonumber(window), tonumber(wanted), tonumber(low), tonumber(since)
local index, size = KEYS[1], math.huge
for _, key in ipairs(KEYS) do
  local count = redis.call('ZCARD', key)
  if count < size then index, size = key, count end
end

-- Byte by byte, as Redis orders what has one score; Lua's own comparison follows the locale.
local function precedes(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local at = high ~= '' and redis.call('ZCOUNT', index, '(' .. high, '+inf') or 0
if score ~= '' then
  at = redis.call('ZCOUNT', index, '(' .. score, '+inf')
  local past = at + redis.call('ZCOUNT', index, score, score)
  while at < past do -- the first of this score that comes after
    local middle = math.floor((at + past) / 2)
    if precedes(redis.call('ZREVRANGE', index, middle, middle)[1], name) then past = middle else at = middle + 1 end
  end
end

local asked = {'workflow', 'status', 'started'}
for i = 11, #ARGV, 5 do asked[#asked + 1] = ARGV[i] end
local function fits(tid)
  local got = redis.call('HMGET', runs .. tid, unpack(asked))
  if not got[2] or (workflow ~= '' and got[1] ~= workflow) or tonumber(got[3]) < since then return false end
  if statuses ~= '' and not string.find(statuses, '|' .. got[2] .. '|', 1, true) then return false end
  for i = 11, #ARGV, 5 do
    local stored, kind, text, from, to = got[3 + (i - 6) / 5] or '', unpack(ARGV, i + 1, i + 4)
    local value = string.sub(stored, 3)
    if string.sub(stored, 1, 1) ~= kind or (kind == 's' and value ~= text) then return false end
    if from ~= '' and tonumber(value) < tonumber(from) or to ~= '' and tonumber(value) > tonumber(to) then return false end
  end
  return true
end

local found, done, place, last = {}, 0, {'', ''}, math.min(at + window, size)
while at < last and done == 0 and #found < 2 * wanted do
  local tid, its = unpack(redis.call('ZREVRANGE', index, at, at, 'WITHSCORES'))
  if low and tonumber(its) < low then
    done = 1
  else
    place, at = {its, tid}, at + 1
    if fits(tid) then found[#found + 1] = its; found[#found + 1] = tid end
  end
end
return {at >= size and 1 or done, place[1], place[2], found}
