-- budget_reserve: set aside what a call may cost at most, unless the account has too little left.
-- KEYS: 1 account (budget, or the run's journal), 2 run (of a run's own)
-- ARGV: 1 run (of a run's own), 2 field, 3 call, 4 who makes it, 5-6 what it costs at most (millionths of a dollar, tokens),
--       7-8 how much may be spent (0 any), 9 ms after which what is set aside counts as spent, 10 ms after which it is not told
--       apart from that any more, 11 when the account may go (ms; 0: with the run)
-- Returns: {0 it is set aside | 1 others have set aside too much | 2 too much is spent | 3 there is no such run, now,
--          what is spent (both), what is set aside (both)}
--#include identity
--#include budget
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if KEYS[2] then
  local run = redis.call('HMGET', KEYS[2], 'v', 'nonce')
  if not (run[1] and is(ARGV[1], run[2])) then return {3, now, 0, 0, 0, 0} end
end
local call, owner = ARGV[3], ARGV[4]
local bound, limit = {tonumber(ARGV[5]), tonumber(ARGV[6])}, {tonumber(ARGV[7]), tonumber(ARGV[8])}
local account = account_at(KEYS[1], ARGV[2])
local spent, reserved, changed = {0, 0}, {0, 0}, false
for name, each in pairs(account.held) do
  -- Who made the same call before is gone, and what was long ago set aside will not be told any more.
  if name == call and each[1] ~= owner or now - each[4] >= tonumber(ARGV[10]) then
    add(account.spent, each, 2)
    account.held[name], changed = nil, true
  else
    add(now - each[4] >= tonumber(ARGV[9]) and spent or reserved, each, 2)
  end
end
add(spent, account.spent, 1)
local function fits(with)
  for i = 1, 2 do
    if limit[i] > 0 and spent[i] + with[i] + bound[i] > limit[i] then return false end
  end
  return true
end
local verdict = account.held[call] and 0 or not fits({0, 0}) and 2 or not fits(reserved) and 1 or 0
if verdict == 0 and not account.held[call] then
  account.held[call], changed = {owner, bound[1], bound[2], now}, true
  add(reserved, bound, 1)
end
if changed then redis.call('HSET', KEYS[1], ARGV[2], cjson.encode(account)) end
if changed and ARGV[11] ~= '0' then redis.call('PEXPIRE', KEYS[1], math.max(1, ARGV[11] - now)) end
return {verdict, now, spent[1], spent[2], reserved[1], reserved[2]}
