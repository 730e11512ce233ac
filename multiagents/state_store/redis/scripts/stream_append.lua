-- stream_append: write down what an attempt says while it runs.
-- KEYS: 1 run, 2 stream
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 how many entries it has written before these, 6 how many the stream keeps,
--       about, 7 channel that wakes readers, then for each entry: kind, field, data (a text)
-- Returns: {1 the attempt is ours | 0 it is not, now}
--#include identity
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local int = function(n) return string.format('%.0f', n) end
local wrote = 'o:' .. string.sub(ARGV[3], 1, 1) .. ':' .. ARGV[2]
local head = redis.call('HMGET', KEYS[1], 'nonce', 'l:' .. ARGV[2], wrote, 'streamed')
local claimed, holder = string.match(head[2] or '', '^(%w+)|c|([^|]*)|')
if not is(ARGV[1], head[1]) or claimed ~= ARGV[3] or holder ~= ARGV[4] then return {0, now} end
-- Who has written last in this step, and how many entries: of those that are sent twice, the first are there.
local me = ARGV[3] .. '|' .. ARGV[4]
local writer, count = string.match(head[3] or '', '^(.*)|(%d+)$')
local there = writer == me and tonumber(count) or 0
local base, last = string.match(head[4] or '', '^(%d+)%-(%d+)$')
base, last = base or int(clock[1] * 1000000 + clock[2]), last and tonumber(last) or -1
local first = 8 + 3 * math.max(0, there - tonumber(ARGV[5]))
if first > #ARGV then return {1, now} end
local function add(kind, field, data)
  last = last + 1
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], base .. '-' .. int(last),
    's', ARGV[2], 'a', ARGV[3], 'k', kind, 'f', field, 'd', data)
end
if writer and writer ~= me then add('attempt', '', string.sub(ARGV[3], 2)) end
for i = first, #ARGV, 3 do add(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
local total = tonumber(ARGV[5]) + (#ARGV - 7) / 3
local id = base .. '-' .. int(last)
redis.call('HSET', KEYS[1], wrote, me .. '|' .. int(total), 'streamed', id)
redis.call('PUBLISH', ARGV[7], '+' .. id)
return {1, now}
