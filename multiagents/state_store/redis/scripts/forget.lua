-- forget: remove a run whose retention is over, unless another one has taken its id since.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due, 6 blobs, 7 definitions, 8 versions, 9 generations, 10 journal,
--       11 stream
-- ARGV: 1 run, 2 prefix of the sent keys, 3-4 prefixes of the indexes and of those of attributes, 5 score its due entry
--       must have (empty: any), 6 how many generations are kept
-- Returns: {1 it is gone | 0 it is not the run that was seen, now}
--#include identity
--#include apply
--#include attributes
--#include examples
--#include erase
local who, seen = ARGV[1], ARGV[5]
local head = redis.call('HMGET', KEYS[1], 'v', 'nonce')
if not head[1] or not is(who, head[2]) then return {0, now} end
if seen ~= '' and redis.call('ZSCORE', KEYS[5], 'x|' .. who) ~= seen then return {0, now} end
erase(id_of(who), ARGV[2], ARGV[3], ARGV[4], KEYS[6], KEYS[7], KEYS[8], KEYS[9], ARGV[6], KEYS[10], KEYS[11])
return {1, now}
