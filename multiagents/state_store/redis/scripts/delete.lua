-- delete: erase a run that is over with all that belongs to it, and keep a tombstone.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due, 6 deleted, 7 dead, 8 blobs, 9 definitions, 10 versions
-- ARGV: 1 transaction, 2-4 prefixes of the sent keys, of the indexes, and of those of attributes, 5 status it must have,
--       6 tombstone (no two are alike), 7 how many to keep, 8.. dead letters that go with it
-- Returns: {1 it is gone | 0 no such run | -1 it is in another status, now}
--#include apply
--#include attributes
--#include erase
local tid, status, tombstone = ARGV[1], ARGV[5], ARGV[6]
if redis.call('ZSCORE', KEYS[6], tombstone) then return {1, now} end -- sent twice
local known = redis.call('HGET', KEYS[1], 'status')
if not known then return {0, now} end
if known ~= status then return {-1, now} end
erase(tid, ARGV[2], ARGV[3], ARGV[4], KEYS[8], KEYS[9], KEYS[10])
for i = 8, #ARGV do redis.call('HDEL', KEYS[7], ARGV[i]) end
redis.call('ZADD', KEYS[6], now, tombstone)
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - tonumber(ARGV[7]))
return {1, now}
