-- delete: erase a run that is over with all that belongs to it, and keep a tombstone.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due, 6 deleted, 7 dead, 8 blobs, 9 definitions, 10 versions,
--       11 generations, 12 journal, 13 stream
-- ARGV: 1 run, 2-4 prefixes of the sent keys, of the indexes, and of those of attributes, 5 status it must have,
--       6 tombstone (no two are alike), 7 how many to keep, 8 how many generations, 9.. dead letters that go with
--       it
-- Returns: {1 it is gone | 0 no such run | -1 it is in another status, now}
--#include identity
--#include apply
--#include attributes
--#include examples
--#include erase
local who, status, tombstone = ARGV[1], ARGV[5], ARGV[6]
if redis.call('ZSCORE', KEYS[6], tombstone) then return {1, now} end -- sent twice
local head = redis.call('HMGET', KEYS[1], 'status', 'nonce', 'learned')
if not head[1] or not is(who, head[2]) then return {0, now} end
if head[1] ~= status then return {-1, now} end
if head[3] then
  local tag = tag_of(KEYS[1])
  for member, worker in pairs(examples_of(tag, who)) do drop_examples(tag, worker, {member}) end
end
erase(id_of(who), ARGV[2], ARGV[3], ARGV[4], KEYS[8], KEYS[9], KEYS[10], KEYS[11], ARGV[8], KEYS[12], KEYS[13])
for i = 9, #ARGV do
  redis.call('HDEL', KEYS[7], ARGV[i])
  redis.call('ZREM', KEYS[7] .. '.since', ARGV[i])
end
redis.call('ZADD', KEYS[6], now, tombstone)
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - tonumber(ARGV[7]))
return {1, now}
