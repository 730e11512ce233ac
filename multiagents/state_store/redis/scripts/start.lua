-- start: create a run with its first transition, unless it exists.
-- KEYS: 1-12 as in commit, 13 definitions, 14 versions, 15 generations, 16 journal, 17 stream
-- ARGV: run, prefix of the sent keys, lease (ms), content hash, definition (JSON; empty: it is kept already),
--       input (JSON), its digest, workflow, version, prefixes of the indexes and of those of attributes, token of this very
--       call (empty: who repeats it is told that the run exists), statuses |a|b| in which a run that exists is replaced,
--       how many generations are kept,
--       then what `transition` reads
-- Returns: {1 created | 0 exists | 2 the definition is not kept, and nothing was done, now, workflow, content hash,
--          digest, if created: another content hash that this version had before}
--#include identity
--#include apply
--#include attributes
--#include examples
--#include erase
--#include transition
local who, sent, lease = take(), take(), tonumber(take())
local hash, definition, input, digest, workflow, version = take(), take(), take(), take(), take(), take()
local index, tags, call, replaced, most = take(), take(), take(), take(), take()
local tid = id_of(who)
local known = redis.call('HMGET', KEYS[1], 'workflow', 'definition', 'digest', 'status', 'call')
if known[1] and call ~= '' and known[5] == call then return {1, now, workflow, hash, digest} end
local replaces = known[1] and string.find(replaced, '|' .. known[4] .. '|', 1, true)
if known[1] and not replaces then return {0, now, known[1], known[2], known[3]} end
local kept = redis.call('HEXISTS', KEYS[13], hash) == 1
if not kept and definition == '' then return {2, now, workflow, hash, digest} end
if not kept then redis.call('HSET', KEYS[13], hash, definition) end
redis.call('HINCRBY', KEYS[13], 'runs:' .. hash, 1) -- before the replaced run goes, which may have followed the same
local fields = {'v', 1, 'epoch', 1, 'digest', digest}
if call ~= '' then fields[7], fields[8] = 'call', call end
if replaces then erase(tid, sent, index, tags, KEYS[12], KEYS[13], KEYS[14], KEYS[15], most, KEYS[16], KEYS[17]) end
local generation = generation_of(KEYS[15], tid) + 1
if generation > 1 then
  fields[#fields + 1], fields[#fields + 2] = 'generation', int(generation)
end
local label = workflow .. '|' .. version
local before = redis.call('HGET', KEYS[14], label)
if before ~= hash then redis.call('HSET', KEYS[14], label, hash) end
redis.call('HSET', KEYS[3], 'i', input)
transition(who, sent, lease, fields)
return {1, now, workflow, hash, digest, before ~= hash and before or ''}
