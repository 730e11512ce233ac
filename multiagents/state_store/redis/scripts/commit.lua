-- commit: apply a transition of a run, or refuse it whole.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due, 6 sequence, 7-8 indexes left, 9-10 indexes entered, 11 dead,
--       12 blobs
-- ARGV: run, prefix of the sent keys, lease (ms), step answered, prefix of its record, score its
--       due entry must have, epoch, version, 1 if it raises the epoch, field of the results that must not be there,
--       (step, record) of attempts that it revokes ..., steps that must not have been begun ...,
--       then what `transition` reads,
--       then, if there is something to learn from: worker, step, text, how many a worker has, how long they are kept (ms), how
--       many go at once
-- Returns: {1 applied | 0 nobody waits for this answer | -1 the run has moved on | -2 no such run
--          | -3 its lease was renewed, now, joined, if applied: events in the history, 0 if none was added}
--#include identity
--#include apply
--#include attributes
--#include transition
--#include examples
local who, sent, lease = take(), take(), tonumber(take())
local answered, prefix, unrenewed, epoch, version, raises_epoch = take(), take(), take(), take(), take(), take()
local absent = take()
local revoked = rows(2)
local fresh = rows(1)

local head = redis.call('HMGET', KEYS[1], 'epoch', 'v', 'l:' .. answered, 'nonce')
if not head[1] or not is(who, head[4]) then return {-2, now, 0} end
if answered ~= '' and (not head[3] or string.sub(head[3], 1, #prefix) ~= prefix) then return {0, now, 0} end
if unrenewed ~= '' then
  local member = 'a|' .. who .. '|' .. answered .. '|' .. string.match(head[3], '^(%w+)|')
  if redis.call('ZSCORE', KEYS[5], member) ~= unrenewed then return {-3, now, 0} end
end
if (epoch ~= '' and epoch ~= head[1]) or (version ~= '' and version ~= head[2]) then return {-1, now, 0} end
if absent ~= '' and redis.call('HEXISTS', KEYS[3], absent) == 1 then return {0, now, 0} end
for _, row in ipairs(revoked) do
  if redis.call('HGET', KEYS[1], 'l:' .. row[1]) ~= row[2] then return {-1, now, 0} end
end
for _, row in ipairs(fresh) do
  if redis.call('HEXISTS', KEYS[1], 's:' .. row[1]) == 1 then return {-1, now, 0} end
end

if answered ~= '' then release(KEYS[1], KEYS[5], sent, who, answered, head[3]) end
for _, row in ipairs(revoked) do release(KEYS[1], KEYS[5], sent, who, row[1], row[2]) end
local fields = {'v', int(head[2] + 1)}
if raises_epoch == '1' then fields = {'v', fields[2], 'epoch', int(head[1] + 1)} end
local joined, events = transition(who, sent, lease, fields)
if at < #ARGV then
  redis.call('HSET', KEYS[1], 'learned', '1')
  learn(tag_of(KEYS[1]), who, now, take(), take(), take(), tonumber(take()), tonumber(take()), tonumber(take()))
end
return {1, now, joined, events}
