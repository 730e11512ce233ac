-- budget: an account, as it is kept. Included by the scripts `budget_...`; not a script of its own.
-- It is one text, {"spent": [millionths of a dollar, tokens], "held": {call: [who makes it, the same two, since when (ms)]}}, and
-- `records/budget.py` has the same in Python.
local function account_at(key, name) return cjson.decode(redis.call('HGET', key, name) or '{"spent":[0,0],"held":{}}') end
local function add(sum, more, from)
  sum[1], sum[2] = sum[1] + more[from], sum[2] + more[from + 1]
end
