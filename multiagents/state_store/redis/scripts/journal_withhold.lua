-- journal_withhold: say of a call that was begun that it is not made for now; whoever asks the same again begins it.
-- KEYS: 1 run, 2 journal
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 slot
-- Returns: {1 | 0 the attempt is no longer ours, now}
--#include identity
--#include journal
if not is_held_by(ARGV[4]) then return {0, now} end
local head, call = head_of(), call_of(ARGV[5])
take_turn(head, ARGV[4])
if call and call.state == 's' then
  call.state, head.withheld = 'h', head.withheld + 1
  redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head), field('c', ARGV[5]), listed(CALL, call))
end
return {1, now}
