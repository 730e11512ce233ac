-- examples_feedback: note what somebody says of what a run's agents have done.
-- KEYS: 1 run, 2 examples of the run
-- ARGV: 1 transaction, 2 nonce of the run (empty: the one that has the id, else the last one that had), 3 step (empty: all),
--       4 what is said
-- Returns: {how many it was noted of, now, the run, its steps that have an example ...}
--#include identity
--#include examples
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local tag, nonce, who = tag_of(KEYS[1]), ARGV[2], nil
if nonce ~= '' then
  who = ARGV[1] .. '~' .. nonce
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  nonce = redis.call('HGET', KEYS[1], 'nonce')
  who = nonce and ARGV[1] .. '~' .. nonce or ARGV[1]
else
  local all, latest = redis.call('HGETALL', KEYS[2]), -1
  for i = 1, #all, 2 do
    local at = tonumber(redis.call('ZSCORE', tag .. 'examples:' .. all[i + 1], all[i]) or 0)
    if at > latest then who, latest = string.match(all[i], '^([^|]*)'), at end
  end
end
local count, reply = 0, {0, now, who or ''}
for member, worker in pairs(who and examples_of(tag, who) or {}) do
  local step = string.sub(member, #who + 2)
  reply[#reply + 1] = step
  if ARGV[3] == '' or ARGV[3] == step then
    redis.call('HSET', tag .. 'example:' .. worker, 'f|' .. member, ARGV[4])
    count = count + 1
  end
end
reply[1] = count
return reply
