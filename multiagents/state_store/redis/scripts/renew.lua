-- renew: extend the lease of an attempt.
-- KEYS: 1 run, 2 due
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 lease (ms), 6 grace after the limit (ms), 7 1 if it is a
--       heartbeat, 8 the heartbeat's detail (JSON, or empty)
-- Returns: {1 renewed | 0 it is no longer ours, now, 1 if the run is to stop}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end
local head = redis.call('HMGET', KEYS[1], 'stop', 'l:' .. ARGV[2], 'nonce')
local attempt_key, owner, claimed, deadline, beat_until, beat, worker =
  string.match(head[2] or '', '^(%w+)|c|([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
local same = is(ARGV[1], head[3])
if not same or attempt_key ~= ARGV[3] or owner ~= ARGV[4] then return {0, now, 1} end
deadline, beat_until, beat = tonumber(deadline), tonumber(beat_until), tonumber(beat)
if ARGV[7] == '1' and beat > 0 then
  beat_until = now + beat
  redis.call('HSET', KEYS[1], 'l:' .. ARGV[2],
    table.concat({attempt_key, 'c', owner, claimed, int(deadline), int(beat_until), int(beat), worker}, '|'))
end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'h:' .. ARGV[2], ARGV[8]) end
local lease = now + tonumber(ARGV[5])
if deadline > 0 then lease = math.min(lease, deadline + tonumber(ARGV[6])) end
if beat_until > 0 then lease = math.min(lease, beat_until) end
redis.call('ZADD', KEYS[2], lease, 'a|' .. ARGV[1] .. '|' .. ARGV[2] .. '|' .. attempt_key)
return {1, now, head[1] == '1' and 1 or 0}
