-- journal_decide: write down what a person has decided of a call that waits for that.
-- KEYS: 1 run, 2 journal, 3 blobs
-- ARGV: 1 run, 2 step, 3 d or u, 4 slot, 5 decision (a text), 6-7 name and text, if it is kept apart
-- Returns: {1 it is written | 0 it was decided before | -1 there is no such call, now, the decision that counts}
--#include identity
--#include journal
local slot = ARGV[4]
local call = is_there and call_of(slot)
if not call or call.kind ~= 'approval' then return {-1, now, ''} end
if call.state ~= 's' then return {0, now, read(field('a', slot)) or ''} end
local head = head_of()
if call.journal ~= head.journal then return {-1, now, ''} end -- who began afresh asks anew
call.state, call.took, head.recorded = 'd', now - call.begun - call.after, head.recorded + 1
if call.turn ~= head.turn then head.left = head.left + 1 end
if ARGV[6] then redis.call('HSET', KEYS[3], ARGV[6], ARGV[7]) end
redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head), field('c', slot), listed(CALL, call), field('a', slot), ARGV[5])
return {1, now, ARGV[5]}
