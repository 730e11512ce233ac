-- budget_settle: put what a call has cost in the place of what was set aside for it, if something was.
-- KEYS: 1 account (budget, or the run's journal)
-- ARGV: 1 field, 2 call, 3 who made it, 4-5 what it has cost (millionths of a dollar, tokens)
-- Returns: {1 | 0 nothing was set aside for it}
--#include budget
local account = account_at(KEYS[1], ARGV[1])
local each = account.held[ARGV[2]]
if not each or each[1] ~= ARGV[3] then return {0} end
account.held[ARGV[2]] = nil
add(account.spent, {tonumber(ARGV[4]), tonumber(ARGV[5])}, 1)
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(account))
return {1}
