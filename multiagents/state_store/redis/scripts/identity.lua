-- identity: which run is meant. Included by all that are told of a run; not a script of its own.
--
-- Ids come back. So a run is named to a script by its id and its nonce, <transaction>~<nonce>, and is so in every entry of
-- due and sent; the field nonce of the run says whose turn the id is. Another run than the one that is meant is none.
local function is(who, nonce) return (string.match(who, '~(.*)$') or false) == nonce end
local function id_of(who) return (string.match(who, '^[^~]*')) end
