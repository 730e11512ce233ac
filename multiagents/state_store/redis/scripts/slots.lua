-- slots: drop those that have run out, of all that are taken. Included by `limit`; not a script of its own.
-- It takes in what `calm` has, `now` and `int`.
--
-- The living could not keep theirs while the server was away, and all ran out at once where its clock was set forward. So
-- each is kept for as long as the leases are, once: such a one has a half in its score. And where the clock was set back, none
-- is kept for longer than a lease.
local function drop_over(slots, meta, lease)
  local calm, extended = is_calm(meta, lease, now)
  local over = calm and redis.call('ZRANGEBYSCORE', slots, '-inf', now, 'WITHSCORES') or {}
  for i = 1, #over, 2 do
    if extended > 0 and over[i + 1] % 1 == 0 then
      redis.call('ZADD', slots, extended + 0.5, over[i])
    else
      redis.call('ZREM', slots, over[i])
    end
  end
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', slots, '(' .. int(now + lease + 1), '+inf')) do
    redis.call('ZADD', slots, now + lease, each)
  end
end
