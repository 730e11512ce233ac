-- program_add: keep a program that a worker has learned, and let the oldest one go that nobody needs.
-- KEYS: 1 programs
-- ARGV: 1 token of this program, 2 program, 3 notes on it, 4 how many are kept besides those in place
-- Returns: {its version, now}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local made = redis.call('HGET', KEYS[1], 't:' .. ARGV[1])
if made then return {tonumber(made), now} end -- this is sent twice
local version = redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('HSET', KEYS[1], 'v:' .. version, ARGV[2], 'm:' .. version, string.format('%d|%s', now, ARGV[3]))
redis.call('HSET', KEYS[1], 't:' .. ARGV[1], version, 'token:' .. version, ARGV[1])
local kept, oldest = 0, version
local place = redis.call('HMGET', KEYS[1], 'current', 'canary', 'former')
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local number = tonumber(string.match(name, '^v:(%d+)$'))
  if number then
    kept = kept + 1
    local needed = tostring(number) == place[1] or tostring(number) == place[2]
    needed = needed or string.find(place[3] or '', ',' .. number .. ',', 1, true)
    if number < oldest and not needed then oldest = number end
  end
end
if kept > tonumber(ARGV[4]) and oldest < version then
  local token = redis.call('HGET', KEYS[1], 'token:' .. oldest)
  redis.call('HDEL', KEYS[1], 'v:' .. oldest, 'm:' .. oldest, 'token:' .. oldest, 't:' .. token)
end
return {version, now}
