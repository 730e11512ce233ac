-- occurrences: which of the calls with one hash is asked for. Included by `journal_begin`; not a script of its own.
-- It takes in what `journal` has.
--
-- What is kept of a hash: the turn of the attempt that asked last, how many occurrences it has asked for, and their slots.
-- An attempt gets them one after the other, whatever the order in which calls that are made at once come here.
local function occurrences(kind, hash, head)
  local name = field('q', head.journal .. '|' .. kind .. '|' .. hash)
  local list = cjson.decode(read(name) or '[0,0]')
  return {name = name, asked = list[1] == head.turn and list[2] or 0, list = list, slot = function(at) return list[at + 2] end}
end
-- What this attempt has asked with this number before: the slot and the call; nil if it has not.
local function sent_before(known, head, number)
  for at = number <= head.high and known.asked or 0, 1, -1 do
    local call = call_of(known.slot(at))
    if call.turn == head.turn and call.number == number then return known.slot(at), call end
  end
end
-- The first that this attempt has not asked for and that is neither refused nor given up: which one, its slot and the call; these are nil if
-- there is none.
local function first_left(known)
  local at, call = known.asked, nil
  repeat
    at = at + 1
    call = known.slot(at) and call_of(known.slot(at))
  until not call or not (call.state == 'x' or call.state == 'u')
  return at, known.slot(at), call
end
-- How many right before one were not answered.
local function unanswered_before(known, at)
  local count = 0
  while at - count > 1 and call_of(known.slot(at - count - 1)).state == 'u' do count = count + 1 end
  return count
end
local function asked_for(known, head, at, slot)
  known.list[1], known.list[2], known.list[at + 2] = head.turn, at, slot
  return cjson.encode(known.list)
end
