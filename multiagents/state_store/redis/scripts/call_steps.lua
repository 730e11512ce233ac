-- call_steps: calls as steps of their run. Included by `journal_begin` and `journal_finish`; not a script of its own.
-- It takes in what `journal` has, and KEYS 4 history, 5 results.
--
-- Whatever it writes raises the version of the run: nobody decides upon the run without it (rules S2, S36).
local function as_step(call) return ARGV[2] .. '.' .. call.name .. '[' .. string.format('%.0f', call.nth - 1) .. ']' end
local function put_step(call, state, event, field, data)
  local step = as_step(call)
  redis.call('HSET', KEYS[1], 'v', string.format('%.0f', run[1] + 1), 's:' .. step, state)
  redis.call('RPUSH', KEYS[4], event)
  if data ~= '' then redis.call('HSET', KEYS[5], field .. step, data) end
end
-- at: where in ARGV its state is, around its number, the event, around its name, and its arguments
local function begin_step(call, at)
  if ARGV[at] == '' or call.nth == 0 or call.undone == 1 then return end
  call.undone = 1
  local number = redis.call('HINCRBY', KEYS[2], field('u'), 1)
  put_step(call, ARGV[at] .. number .. ARGV[at + 1], ARGV[at + 2] .. as_step(call) .. ARGV[at + 3], 'n:', ARGV[at + 4])
end
local function state_of(call)
  return call and call.undone == 1 and redis.call('HGET', KEYS[1], 's:' .. as_step(call)) or ''
end
-- at: where in ARGV its state is, the event, and its result. Who has lost the attempt may have said before that it succeeded.
local function end_step(call, at)
  local is_open = string.sub(state_of(call), 1, 4) == '[["f'
  if ARGV[at] ~= '' and is_open then put_step(call, ARGV[at], ARGV[at + 1], 'r:', ARGV[at + 2]) end
end
-- Names and texts, from there in ARGV on.
local function put_apart(from)
  for i = from, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
