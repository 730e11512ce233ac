-- journal_begin: ask whether a call is to be made, and write down that it begins.
-- KEYS: 1 run, 2 journal, 3 blobs, 4 history, 5 results
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 kind, 6 hash, 7 number, 8 name, 9 1 if it may be made twice, 10 1 if that is
--       of no account, 11 1 if it is not to begin where it diverges, 12 most calls of its name (0 any), 13 most at all,
--       14 base slot, 15-16 characters that it begins and ends with of that request, 17 the rest of the request,
--       18 most models, 19-23 what `begin_step` takes (empty where it is no step), 24.. names and texts of what is kept apart
-- Returns: {verdict, now, 1 if the run is to stop, 1 if it is paused, slot, occurrence, 1 if diverged, 1 if it may have
--          been made twice, 1 if the answer is an error, the bound that was reached, how long a doubtful one waits (ms), how
--          many of its hash right before it were not answered, which of its tool it is (0 unknown), state, answer (or empty)}
--#include identity
--#include journal
--#include occurrences
--#include call_steps
local kind, name, number, attempt = ARGV[5], ARGV[8], tonumber(ARGV[7]), tonumber(string.sub(ARGV[3], 2))
local stop, held, known = is_there and run[3] == '1' and 1 or 0, is_there and run[4] == '1' and 1 or 0, nil
local function told(verdict, slot, call, at, bound)
  local text, how = verdict == 'replay' and read(field('a', slot)), verdict == 'diverged' and verdict or call and call.how
  return {verdict, now, stop, held, slot or '', at or 0, how == 'diverged' and 1 or 0, call and call.twice > 0 and 1 or 0,
    text and call.state == 'f' and 1 or 0, bound or 0, verdict == 'doubt' and now - call.begun or 0,
    slot and slot ~= '' and unanswered_before(known, at) or 0, call and call.nth or 0, state_of(call), text or ''}
end
if not is_held_by(ARGV[4]) then return told('lost') end
local head, writes = head_of(), {}
local function write(what, value) writes[#writes + 1], writes[#writes + 2] = what, value end
take_turn(head, ARGV[4])
known = occurrences(kind, ARGV[6], head)
local slot, call = sent_before(known, head, number)
if call then return told(call.how == 'diverged' and 'live' or call.how, slot, call, call.occurrence) end
if stop + held > 0 and string.sub(ARGV[3], 1, 1) == 'd' then return told('stopped') end
local at; at, slot, call = first_left(known)
if not call then
  local of_name, most = field('n', name), tonumber(ARGV[12])
  local count = kind == 'tool' and tonumber(read(of_name) or 0) or 0
  if head.left > 0 and ARGV[11] == '1' then return told('diverged') end
  local bound = head.calls >= tonumber(ARGV[13]) and tonumber(ARGV[13]) or most > 0 and count >= most and most
  if bound then return told('full', '', nil, 0, bound) end
  slot, call = head.calls + 1, named(CALL)
  call.state, call.kind, call.name, call.journal, call.occurrence = 's', kind, name, head.journal, at
  call.how, call.begun, call.attempt = 'live', now, attempt
  call.base, call.keep, call.tail = ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[16])
  if head.left > 0 and head.diverged == 0 then call.how, head.diverged = 'diverged', 1 end
  head.calls, head.approvals = slot, head.approvals + (kind == 'approval' and 1 or 0)
  if kind == 'tool' then call.nth = redis.call('HINCRBY', KEYS[2], of_name, 1) end
  if kind == 'lm' then add_model(head, name, ARGV[18]) end
  if ARGV[17] ~= '' then write(field('r', slot), ARGV[17]) end
elseif call.state == 'h' then -- it was begun, and not made: what it was told then holds
  call.state, call.after, call.attempt, head.withheld = 's', now - call.begun, attempt, head.withheld - 1
elseif call.state == 's' then
  if ARGV[9] == '0' then return told('doubt', slot, {twice = call.twice, begun = call.begun, nth = call.nth}, at) end
  call.how, call.after, call.attempt = 'again', now - call.begun, attempt
  if ARGV[10] == '0' then call.twice, head.twice = call.twice + 1, head.twice + 1 end
else
  call.how, call.replayed, head.replayed, head.left = 'replay', call.replayed + 1, head.replayed + 1, head.left - 1
end
if call.how ~= 'replay' then begin_step(call, 19); put_apart(24) end
call.turn, call.number, head.high = head.turn, number, math.max(head.high, number)
write(field('j'), listed(HEAD, head)); write(field('c', slot), listed(CALL, call))
write(known.name, asked_for(known, head, at, slot))
redis.call('HSET', KEYS[2], unpack(writes))
return told(call.how == 'diverged' and 'live' or call.how, slot, call, at)
