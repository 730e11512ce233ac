-- journal_refuse: say of calls that what they were answered made the attempt fail, or that they were not: they are not replayed.
-- KEYS: 1 run, 2 journal
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 why (a text), 6.. slots
-- Returns: {1 | 0 the attempt is no longer ours, now}
--#include identity
--#include journal
if not is_held_by(ARGV[4]) then return {0, now} end
local head = head_of()
take_turn(head, ARGV[4])
for i = 6, #ARGV do
  local call = call_of(ARGV[i])
  if call and not string.find('xuh', call.state, 1, true) then
    if call.state ~= 's' and call.journal == head.journal then
      head.recorded = head.recorded - 1
      if call.turn ~= head.turn then head.left = head.left - 1 end
    end
    call.state = call.state == 's' and 'u' or 'x'
    redis.call('HSET', KEYS[2], field('c', ARGV[i]), listed(CALL, call), field('w', ARGV[i]), ARGV[5])
  end
end
redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head))
return {1, now}
