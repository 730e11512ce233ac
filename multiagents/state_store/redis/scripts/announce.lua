-- announce: write down what a worker process says of itself, and take away what counts no more.
-- KEYS: 1 announced
-- ARGV: 1 how many entries go, their names ..., then of each that is written: name, JSON
-- Returns: {1}
local gone = tonumber(ARGV[1])
for i = 2, gone + 1 do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = gone + 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return {1}
