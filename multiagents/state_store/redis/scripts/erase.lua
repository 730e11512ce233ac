-- erase: remove a run with all that belongs to it. Included by `start`, `forget` and `delete`; not a script of its own.
-- KEYS: 1 run, 2 context, 3 results, 4 history, 5 due; the names of indexes are put together, under the run's own tag.
-- It takes in what `identity`, `apply`, `attributes` and `examples` have.

-- What is left of an id is how many runs have had it (their generation), so that the steps of the next one get idempotency
-- keys of their own. It is the score, below the second in which it was written: what was written first goes first.
local function remember(generations, tid, generation, most)
  redis.call('ZADD', generations, int(clock[1] * 1000000 + math.min(generation, 999999)), tid)
  redis.call('ZREMRANGEBYRANK', generations, 0, -1 - tonumber(most))
end
local function generation_of(generations, tid)
  return math.fmod(tonumber(redis.call('ZSCORE', generations, tid) or 0), 1000000)
end

-- Remove the run that is there, whichever it is.
-- sent, index, tags: prefixes of the sent keys, of the indexes, and of those of attributes
-- blobs, definitions, versions, generations: the keys; what no run follows any more goes with the last one that did
-- most: how many generations are kept
-- journal, stream: the keys of the calls inside its steps, and of what they have said
local function erase(tid, sent, index, tags, blobs, definitions, versions, generations, most, journal, stream)
  local run, due = KEYS[1], KEYS[5]
  local fields, header = redis.call('HGETALL', run), {}
  for i = 1, #fields, 2 do header[fields[i]] = fields[i + 1] end
  local who = header.nonce and tid .. '~' .. header.nonce or tid
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local kind, rest = string.match(name, '^(%l):(.*)$')
    if kind == 'l' then
      release(run, due, sent, who, rest, value)
    elseif kind == 'a' then
      untag(tags, tid, rest, value)
    elseif kind == 's' and string.sub(value, 1, 1) == '[' then -- else a codec has sealed it
      -- By when an attempt had to be claimed is looked at later, whatever became of it; of old ones it has been.
      for which, activity in ipairs(cjson.decode(value)) do
        local last = which <= 2 and activity[2] or 0
        for attempt = math.max(1, last - 99), last do
          redis.call('ZREM', due, 'q|' .. who .. '|' .. rest .. '|' .. (which == 1 and 'd' or 'u') .. int(attempt))
        end
      end
    end
  end
  if header.status then
    redis.call('ZREM', index .. header.status, tid)
    redis.call('ZREM', index .. header.status .. ':' .. header.workflow, tid)
    local hash, count = header.definition, 'runs:' .. header.definition
    if redis.call('HEXISTS', definitions, count) == 1 and redis.call('HINCRBY', definitions, count, -1) < 1 then
      redis.call('HDEL', definitions, hash, count)
      local label = header.workflow .. '|' .. header.version
      if redis.call('HGET', versions, label) == hash then redis.call('HDEL', versions, label) end
    end
  end
  redis.call('ZREM', due, 'x|' .. who, 'r|' .. who, 't|' .. who)
  if header.learned then conclude(tag_of(run), who, header.status, header.edited) end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], blobs, journal, stream)
  remember(generations, tid, tonumber(header.generation or 1), most)
end
