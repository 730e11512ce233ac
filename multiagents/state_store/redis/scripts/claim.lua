-- claim: take an attempt under a lease, and return what running and deciding it needs.
-- KEYS: 1 run, 2 context, 3 results, 4 due
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 worker, 6 time limit (ms from now, 0 none), 7 heartbeat (ms, 0
--       none), 8 lease (ms), 9 grace after the limit (ms), 10 prefix of the sent keys, 11 1 if the context is asked for,
--       12.. fields of results to return
-- Returns: {1, now, deadline, {status, stop, epoch, error, cause, signals, generation, sizes, parent,
--          rollbacks}, step, context, results}
--          or {0, now, 1 no such run | 2 not this attempt | 3 claimed by somebody else | 4 of an earlier run}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end
local run, step, owner = KEYS[1], ARGV[2], ARGV[4]
local head = redis.call('HMGET', run, 'status', 'stop', 'epoch', 'error', 'cause', 'signals', 'generation', 'sizes',
  'parent', 'rollbacks', 's:' .. step, 'l:' .. step, 'nonce')
if not head[1] then return {0, now, 1} end
if not is(ARGV[1], head[13]) then return {0, now, 4} end
local attempt_key, delivery, rest = string.match(head[12] or '', '^(%w+)|(%w)|(.*)$')
-- A timer, a sleep, a foreign producer and a lock are no message that a worker could have got.
if attempt_key ~= ARGV[3] or string.find('wezy', delivery, 1, true) then return {0, now, 2} end

local member = 'a|' .. ARGV[1] .. '|' .. step .. '|' .. attempt_key
local deadline = 0
if delivery == 'c' then
  local holder, limit = string.match(rest, '^([^|]*)|%d+|(%d+)')
  if holder ~= owner then return {0, now, 3} end
  deadline = tonumber(limit)
else
  local close, list = string.match(rest, '^%d+|%d+|(%d+)|%d+|(.*)$')
  local limit, beat = tonumber(ARGV[6]), tonumber(ARGV[7])
  deadline = limit > 0 and now + limit or 0
  close = tonumber(close)
  -- What is over by now is being ended by a sweep, unless the clock was set forward and no sweep has seen that yet.
  if close > 0 and close <= now then
    local swept = redis.call('HGET', string.gsub(KEYS[4], 'due$', 'meta'), 'swept')
    if swept and now - swept > ARGV[8] / 3 then close = 0 end
  end
  if close > 0 and (deadline == 0 or close < deadline) then deadline = close end
  if delivery == 's' then redis.call('ZREM', ARGV[10] .. list, member) end
  local beat_until = beat > 0 and now + beat or 0
  redis.call('HSET', run, 'l:' .. step,
    table.concat({attempt_key, 'c', owner, int(now), int(deadline), int(beat_until), ARGV[7], ARGV[5]}, '|'))
  local lease = now + tonumber(ARGV[8])
  if deadline > 0 then lease = math.min(lease, deadline + tonumber(ARGV[9])) end
  if beat_until > 0 then lease = math.min(lease, beat_until) end
  redis.call('ZADD', KEYS[4], lease, member)
end

local results = redis.call('HMGET', KEYS[3], unpack(ARGV, 12, math.min(#ARGV, 1011)))
for from = 1012, #ARGV, 1000 do -- unpack fails at some thousands
  for _, value in ipairs(redis.call('HMGET', KEYS[3], unpack(ARGV, from, math.min(#ARGV, from + 999)))) do
    results[#results + 1] = value
  end
end
local context = ARGV[11] == '1' and redis.call('HGETALL', KEYS[2]) or {}
return {1, now, deadline, {unpack(head, 1, 10)}, head[11], context, results}
