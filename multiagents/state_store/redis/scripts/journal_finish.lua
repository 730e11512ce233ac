-- journal_finish: write down what a call was answered.
-- KEYS: 1 run, 2 journal, 3 blobs, 4 history, 5 results
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 slot, 6 answer (a text), 7 1 if it is an error, 8-10 tokens asked and answered,
--       millionths of a dollar, 11 who has answered, 12 most that is kept as evidence, 13 most models; of a call that is to be
--       undone as a step: 14 its state, 15 the event, 16 its result (empty: none), else three that are empty; 17.. names
--       and texts of what is kept apart
-- Returns: {1 the attempt is ours | 0 it is not: the answer is kept as evidence, if there is such a call, now}
--#include identity
--#include journal
--#include call_steps
local slot, ours = ARGV[5], is_held_by(ARGV[4])
local call = is_there and call_of(slot)
if not call then return {ours and 1 or 0, now} end
if ours and call.state ~= 's' then return {1, now} end -- sent twice
local head, writes = head_of(), nil
local spent = {input_tokens = tonumber(ARGV[8]), output_tokens = tonumber(ARGV[9]), micro_usd = tonumber(ARGV[10])}
if ours then
  take_turn(head, ARGV[4])
  call.state, call.took, call.model = ARGV[7] == '1' and 'f' or 'd', now - call.begun - call.after, ARGV[11]
  for name, value in pairs(spent) do call[name] = value end
  head.recorded, head.latency = head.recorded + 1, head.latency + call.took
  -- Somebody has found out what became of what an earlier attempt had begun: this one has not asked for it yet.
  if call.turn ~= head.turn then head.left = head.left + 1 end
  writes = {field('c', slot), listed(CALL, call), field('a', slot), ARGV[6]}
  end_step(call, 14)
else
  local late = field('e', slot .. '|' .. ARGV[4])
  if redis.call('HEXISTS', KEYS[2], late) == 1 or head.evidence >= tonumber(ARGV[12]) then return {0, now} end
  head.evidence = head.evidence + 1
  local about = {tonumber(string.sub(ARGV[3], 2)), now, tonumber(ARGV[7]), spent.input_tokens, spent.output_tokens,
    spent.micro_usd, ARGV[11], ARGV[6]}
  writes = {late, cjson.encode(about)}
end
-- It was spent, whoever has asked.
for name, value in pairs(spent) do head[name] = head[name] + value end
if ARGV[11] ~= '' then add_model(head, ARGV[11], ARGV[13]) end
put_apart(17)
redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head), unpack(writes))
return {ours and 1 or 0, now}
