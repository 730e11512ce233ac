-- attributes: what a run is found by. Included by `start`, `commit`, `forget` and `delete`; not a script of its own.
--
-- An attribute is the field a:<name> of the run: s|<text>, n|<number> or t|<ms>; the field `attributes` counts them.
-- Its entry is in the sorted set <prefix>s:<name>:<text>, by the time the run started, or <prefix>n:<name> or
-- <prefix>t:<name>, by its value.
local function untag(prefix, tid, name, stored)
  local kind, value = string.sub(stored, 1, 1), string.sub(stored, 3)
  redis.call('ZREM', prefix .. kind .. ':' .. name .. (kind == 's' and ':' .. value or ''), tid)
end

-- stored: the new value; empty removes the attribute. What goes beyond the limit is not kept.
local function tag(run, prefix, tid, name, stored, limit)
  local field = 'a:' .. name
  local old = redis.call('HGET', run, field)
  if old == stored or (not old and stored == '') then return end
  if old then
    untag(prefix, tid, name, old)
  elseif tonumber(redis.call('HGET', run, 'attributes') or 0) >= limit then
    return
  else
    redis.call('HINCRBY', run, 'attributes', 1)
  end
  if stored == '' then
    redis.call('HDEL', run, field)
    redis.call('HINCRBY', run, 'attributes', -1)
    return
  end
  redis.call('HSET', run, field, stored)
  local kind, value = string.sub(stored, 1, 1), string.sub(stored, 3)
  if kind == 's' then
    redis.call('ZADD', prefix .. 's:' .. name .. ':' .. value, redis.call('HGET', run, 'started') or int(now), tid)
  else
    redis.call('ZADD', prefix .. kind .. ':' .. name, value, tid)
  end
end
