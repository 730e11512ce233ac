-- tick: write down how far a schedule has come; never back, whoever is late, unless what is written is still to come: then
-- the clock has been set back since.
-- KEYS: 1 schedules
-- ARGV: 1 the schedule's field, 2 time of the tick (ms), 3 how long before now another one that is not paused must have
--       ticked last to be forgotten (ms)
-- Returns: {1 written | 0 it has come as far already, now}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '-1')
if last >= tonumber(ARGV[2]) and last <= now + 60000 then return {0, now} end -- a beat's clock may be ahead a little
if redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1 then -- one comes, so others may go
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local kind, name = string.match(fields[i], '^(%a+):(.*)$')
    local old = kind == 'last' and tonumber(fields[i + 1]) < now - tonumber(ARGV[3])
    if old and fields[i] ~= ARGV[1] and redis.call('HEXISTS', KEYS[1], 'paused:' .. name) == 0 then redis.call('HDEL', KEYS[1], fields[i]) end
  end
end
return {1, now}
