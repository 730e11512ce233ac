-- journal_open: begin with the calls of an attempt.
-- KEYS: 1 run, 2 journal
-- ARGV: 1 run, 2 step, 3 attempt key, 4 owner, 5 what is fixed by the first attempt (a text)
-- Returns: {1, now, how many calls can be replayed, what the first attempt has fixed}
--          or {0 the attempt is no longer ours, now}
--#include identity
--#include journal
if not is_held_by(ARGV[4]) then return {0, now} end
local head = head_of()
if take_turn(head, ARGV[4]) then redis.call('HSET', KEYS[2], field('j'), listed(HEAD, head)) end
local pins = field('p', head.journal)
redis.call('HSETNX', KEYS[2], pins, ARGV[5])
return {1, now, head.recorded, read(pins)}
