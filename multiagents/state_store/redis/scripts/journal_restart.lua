-- journal_restart: have the next attempt of a step begin with an empty journal.
-- KEYS: 1 run, 2 journal
-- ARGV: 1 run, 2 step, 3 d or u
-- Returns: {1 | 0 no such run, or somebody holds the step, now}
--#include identity
--#include journal
if not is_there or claimed then return {0, now} end
local head = head_of()
if head.calls > head.since or read(field('p', head.journal)) then -- else it is empty, or this is sent twice
  head.journal, head.since, head.recorded, head.owner = head.journal + 1, head.calls, 0, ''
  redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head))
end
return {1, now}
