"""What a dead letter is known by: the very run, and what of it, so that no letter takes another's place.

Ids come back (rule S32), and letters stay when a run goes. ``order-1~5f0cR-2x/charge/undo/1`` is about an undo that a
person has to settle; one about an outcome that no run took in has what the outcome says at its end, as two of them may
say two things of one attempt: ``order-1~5f0cR-2x/charge/do/1|2bb80d537b1da3e3``. Who reported it may not have said of
which run it is; then the nonce is missing. ``order-1~5f0cR-2x`` is about the run, and ``bus|...`` about no run.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from multiagents.exceptions import DecodeError
from multiagents.names import Correlation, parse_identity
from multiagents.plain_json import canonical


class LetterKey(NamedTuple):
    """The key of a dead letter, taken apart.

    Attributes:
        transaction_id: the run; of what lay on the bus, the key itself.
        nonce: which of those that have had the id; empty where nobody knows.
        attempt: what it is about, if that is an attempt.
    """

    transaction_id: str
    nonce: str
    attempt: Correlation | None

    @classmethod
    def parse(cls, key: str) -> LetterKey:
        """Take a key apart, also one that an earlier release has written: it has no nonce.

        >>> LetterKey.parse("order-1~5f0cR-2x/charge/undo/1").attempt.step
        'charge'
        """
        about = key.partition("|")[0]
        run, slash, rest = about.partition("/")
        transaction_id, nonce = parse_identity(run)
        if not slash:
            return cls(key, "", None) if about != key else cls(transaction_id, nonce, None)
        try:
            return cls(transaction_id, nonce, Correlation.parse(f"{transaction_id}/{rest}")._replace(nonce=nonce))
        except DecodeError:
            return cls(key, "", None)


def key_of_outcome(about: str, nonce: str | None, said: Mapping[str, Any]) -> str:
    """The key of the letter of an outcome that no run took in: the same for the same outcome, however often it comes.

    Args:
        about: the correlation id, as it was sent, or what else it is known by.
        nonce: of the run, if it was sent, too.
        said: what the outcome says.
    """
    run, slash, rest = about.partition("/")
    told = sha256(canonical(said).encode()).hexdigest()[:16]
    return f"{run}~{nonce}{slash}{rest}|{told}" if nonce else f"{about}|{told}"
