-- journal: the calls inside a step, as they are kept. Included by the scripts `journal_...`; not a script of its own.
-- KEYS: 1 run, 2 journal; ARGV: 1 run, 2 step, 3 attempt key, or its first letter. It takes in what `identity` has.
--
-- All calls of a run are in one hash; `records/journal_fields.py` says what is in its fields, and has these names, too.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local HEAD = {'journal', 'turn', 'calls', 'since', 'recorded', 'left', 'high', 'diverged', 'replayed', 'twice',
  'input_tokens', 'output_tokens', 'micro_usd', 'latency', 'evidence', 'owner', 'models', 'approvals', 'withheld'}
local CALL = {'state', 'kind', 'journal', 'occurrence', 'turn', 'number', 'how', 'attempt', 'begun', 'after', 'took',
  'replayed', 'twice', 'base', 'keep', 'tail', 'input_tokens', 'output_tokens', 'micro_usd', 'name', 'model', 'nth', 'undone'}
local TEXTS = {state = 1, kind = 1, how = 1, owner = 1, models = 1, name = 1, model = 1, base = 1}

local run = redis.call('HMGET', KEYS[1], 'v', 'nonce', 'stop', 'held', 'l:' .. ARGV[2])
local is_there = run[1] and is(ARGV[1], run[2])
-- Whether an attempt of the step is claimed, by whom.
local claimed, holder = string.match(run[5] or '', '^(%w+)|c|([^|]*)|')
local function is_held_by(owner) return is_there and claimed == ARGV[3] and holder == owner end

local function field(kind, rest)
  local name = kind .. '|' .. ARGV[2] .. '|' .. string.sub(ARGV[3], 1, 1)
  return rest and name .. '|' .. rest or name
end
local function read(name) return redis.call('HGET', KEYS[2], name) end
local function named(names, text)
  local list, values = text and cjson.decode(text) or {}, {}
  for i, name in ipairs(names) do values[name] = list[i] or (TEXTS[name] and '' or 0) end
  return values
end
local function listed(names, values)
  local list = {}
  for i, name in ipairs(names) do list[i] = values[name] end
  return cjson.encode(list)
end
local function head_of() return named(HEAD, read(field('j')) or '[1]') end
local function call_of(slot)
  local text = read(field('c', slot))
  return text and named(CALL, text)
end
local function add_model(head, model, most)
  local list, count = '\n' .. head.models .. '\n', select(2, string.gsub(head.models, '[^\n]+', ''))
  if model == '' or count >= tonumber(most) or string.find(list, '\n' .. model .. '\n', 1, true) then return end
  head.models = count == 0 and model or head.models .. '\n' .. model
end
-- Another owner is another attempt: none of the answers that there are has been asked for by this one.
local function take_turn(head, owner)
  if head.owner == owner then return false end
  head.owner, head.turn, head.left, head.high, head.diverged = owner, head.turn + 1, head.recorded, 0, 0
  return true
end
