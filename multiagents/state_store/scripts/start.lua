-- start: create a run with its first transition, unless it exists.
-- KEYS: 1-12 as in commit, 13 definitions
-- ARGV: transaction, prefix of the sent keys, lease (ms), content hash, definition (JSON; empty: it is kept already),
--       input (JSON), its digest, workflow, then what `transition` reads
-- Returns: {1 created | 0 exists | 2 the definition is not kept, and nothing was done, now, workflow, content hash, digest}
--#include apply
--#include transition
local tid, sent, lease = take(), take(), tonumber(take())
local hash, definition, input, digest, workflow = take(), take(), take(), take(), take()
local known = redis.call('HMGET', KEYS[1], 'workflow', 'definition', 'digest')
if known[1] then return {0, now, known[1], known[2], known[3]} end
if definition ~= '' then
  redis.call('HSETNX', KEYS[13], hash, definition)
elseif redis.call('HEXISTS', KEYS[13], hash) == 0 then
  return {2, now, workflow, hash, digest}
end
redis.call('HSET', KEYS[3], 'i', input)
transition(tid, sent, lease, {'v', 1, 'epoch', 1, 'digest', digest})
return {1, now, workflow, hash, digest}
