-- calm: whether what has run out by the clock has run out. Included by `limit` and `lock`; not a script of its own.
--
-- Nobody knows while nobody has looked since the server was away or its clock was set, nor while what was due then is still
-- being moved: see `take_due`.
-- Returns that, and until when the leases of the living are extended (0: they are not).
local function is_calm(meta, lease, now)
  local at = redis.call('HMGET', meta, 'swept', 'grace', 'back')
  local since = now - (at[1] or now)
  local extended = tonumber(at[2] or 0)
  return since >= 0 and since <= lease / 3 and not at[3], extended > now and extended or 0
end
