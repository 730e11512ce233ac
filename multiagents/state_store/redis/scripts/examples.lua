-- examples: what agents leave to learn from. Included by what writes there; not a script of its own.
--
-- They lie in the partition of their run, by worker, and outlive it; their keys are put together under its tag. An example is
-- known by its member, <run>|<step>. README.md has what is in each key.
local function tag_of(key) return string.match(key, '^.-{%d+}:') end
local function run_of(member) return string.match(member, '^([^~|]*)') end

local function drop_examples(tag, worker, members)
  for _, member in ipairs(members) do
    redis.call('ZREM', tag .. 'examples:' .. worker, member)
    redis.call('HDEL', tag .. 'example:' .. worker, 'x|' .. member, 'o|' .. member, 'f|' .. member)
    redis.call('HDEL', tag .. 'examples.of:' .. run_of(member), member)
  end
end

-- The members of a run, and their workers.
local function examples_of(tag, who)
  local all, found = redis.call('HGETALL', tag .. 'examples.of:' .. run_of(who)), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, #who + 1) == who .. '|' then found[all[i]] = all[i + 1] end
  end
  return found
end

-- Write one down, and drop what is too old or too much.
local function learn(tag, who, now, worker, step, text, most, keep, at_once)
  local since, kept, member = tag .. 'examples:' .. worker, tag .. 'example:' .. worker, who .. '|' .. step
  local last = redis.call('ZREVRANGE', since, 0, 0, 'WITHSCORES')[2]
  -- No two at once: their times are where a reader goes on.
  redis.call('ZADD', since, string.format('%.0f', math.max(now, last and last + 1 or 0)), member)
  redis.call('HDEL', kept, 'o|' .. member, 'f|' .. member)
  redis.call('HSET', kept, 'x|' .. member, text)
  redis.call('HSET', tag .. 'examples.of:' .. run_of(who), member, worker)
  redis.call('HSET', tag .. 'learners', worker, 1)
  local over = redis.call('ZCARD', since) - most
  if over > 0 then drop_examples(tag, worker, redis.call('ZRANGE', since, 0, math.min(over, at_once) - 1)) end
  drop_examples(tag, worker, redis.call('ZRANGEBYSCORE', since, '-inf', now - keep, 'LIMIT', 0, at_once))
end

-- The run goes: from now on nobody can look up how it has ended.
local function conclude(tag, who, status, edited)
  for member, worker in pairs(examples_of(tag, who)) do
    redis.call('HSET', tag .. 'example:' .. worker, 'o|' .. member, status .. '|' .. (edited or ''))
  end
end
