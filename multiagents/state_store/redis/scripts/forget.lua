-- forget: remove a run whose retention is over, unless another one has taken its id since.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due, 6 blobs, 7 definitions, 8 versions
-- ARGV: transaction, prefix of the sent keys, prefixes of the indexes and of those of attributes, score its due entry
--       must have (empty: any)
-- Returns: {1 it is gone | 0 it is not the run that was seen, now}
--#include apply
--#include attributes
--#include erase
local tid, seen = ARGV[1], ARGV[5]
if seen ~= '' and redis.call('ZSCORE', KEYS[5], 'x|' .. tid) ~= seen then return {0, now} end
erase(tid, ARGV[2], ARGV[3], ARGV[4], KEYS[6], KEYS[7], KEYS[8])
return {1, now}
