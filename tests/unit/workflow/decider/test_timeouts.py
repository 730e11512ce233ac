"""Rule S33: until when an attempt that nobody claims is sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.workflow.decider.timeouts import COUNTS_FROM, Again, sent_again

LEASE, LIMIT = 30_000, 300_000


@pytest.mark.parametrize(
    ("sent", "waited", "since", "then"),
    [
        (1, 3_600_000, 30_000, Again(0, 2, 1)),  # however long its queue was
        (2, 3_600_000, 30_000, Again(0, 3, 0)),  # from now on it counts
        (3, 60_000, 30_000, Again(0, 4, 1)),
        (4, 60_000, 30_000, Again(30_000, 4, 1)),
        (5, 290_000, 30_000, Again(10_000, 5, 1)),  # and ends in time
        (5, 300_000, 30_000, None),
        (0, 299_999, 5_000, Again(0, 0, 1)),  # a worker did not know it: its pauses are made elsewhere
        (0, 300_000, 5_000, None),
    ],
)
def test_S33_what_nobody_claims_is_sent_again_with_growing_pauses_and_then_given_up(
    sent: int, waited: int, since: int, then: Again | None
) -> None:
    now = 1 + waited

    assert sent_again(sent=sent, first=1, since=now - since, now=now, pause=LEASE, limit=LIMIT) == then


@given(st.integers(1, 3_600), st.integers(1, 600), st.lists(st.integers(0, 900), max_size=40))
def test_S33_whatever_the_settings_few_messages_go_out_and_the_step_ends_in_time(
    limit_s: int, lease_s: int, queued: list[int]
) -> None:
    limit, lease = limit_s * 1000, lease_s * 1000
    now, sends, first, since, sent = 1, 1, 1, 1, 1
    waits = iter(queued)
    counted_from = None
    for _ in range(10_000):
        # It waits in its queue for a while, something takes it, and a lease later that is noticed.
        now += next(waits, 0) * 1000 * (sent < COUNTS_FROM) + lease
        while (
            again := sent_again(sent=sent, first=first, since=since, now=now, pause=lease, limit=limit)
        ) and again.in_ms:
            now += again.in_ms
        if again is None:
            break
        sends, sent, since = sends + 1, again.sent, now
        first = again.first or now
        counted_from = now if sent == COUNTS_FROM else counted_from
    else:
        pytest.fail("it is sent for ever")

    assert counted_from is not None
    assert limit <= now - counted_from <= limit + lease
    assert sends <= COUNTS_FROM + 1 + (limit // lease).bit_length()
