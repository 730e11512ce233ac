-- examples_page: some of the examples of a worker, newest first.
-- KEYS: 1 examples of the worker, 2 what is in them
-- ARGV: 1 prefix of the runs, 2 before which time (empty: the newest), 3 how many, 4 how long they are kept (ms)
-- Returns: {now, of each its member, when, text, status of its run (empty: nobody knows), 1 if a person has settled something
--           in the run, feedback (empty: none) ...}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local highest = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local found = redis.call('ZREVRANGEBYSCORE', KEYS[1], highest, now - tonumber(ARGV[4]), 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local reply = {now}
for i = 1, #found, 2 do
  local member = found[i]
  local kept = redis.call('HMGET', KEYS[2], 'x|' .. member, 'o|' .. member, 'f|' .. member)
  local who = string.match(member, '^([^|]*)')
  local run = redis.call('HMGET', ARGV[1] .. id_of(who), 'status', 'nonce', 'edited')
  local status, edited = string.match(kept[2] or '|', '^([^|]*)|(.*)$')
  if run[1] and is(who, run[2]) then status, edited = run[1], run[3] or '' end
  for _, value in ipairs({member, found[i + 1], kept[1] or '', status, edited, kept[3] or ''}) do
    reply[#reply + 1] = value
  end
end
return reply
