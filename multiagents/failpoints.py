"""Every place where the engine writes to Redis or publishes a message, by name.

A process may die before a write, after it, or may never hear that it was made. Each site says what follows; the test
"crash at every write" does all of this at each of them, so a write that has no site is a write that nobody has tried.
Two rules hold:

1. A write goes through `write`, or through an adapter's one way out, with its site. A test reads the sources for it.
2. A site that works on an attempt has a name for each direction: what is safe going forward need not be so going back.

Reads have no site: who dies over one has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

__all__ = ["WriteSite", "write"]

_T = TypeVar("_T")


class WriteSite(StrEnum):
    """Where the engine writes: ``store.`` to the state store, ``broker.`` a message, ``bus.`` to the event bus."""

    # --- commits: one transition of a run each ---

    #: The caller creates the run and sends its first steps. It repeats the start with the same id when in doubt.
    START = "store.start"
    #: The caller creates a run that takes over what another one has done. It repeats the fork with the same id.
    FORK = "store.fork"
    #: A worker commits a step's result and sends what follows, on the projection that its claim gave it.
    SETTLE = "store.settle"
    #: A step's outcome that takes the whole run to decide is put down: a failure for good, or one of a run that
    #: compensates. In queued mode every outcome is.
    RECORD = "store.record"
    #: The same for an undo.
    RECORD_UNDO = "store.record_undo"
    #: A decision over the whole run: after a record or a join, upon an outcome that came when the run had turned, or
    #: one that nobody came to make.
    ADVANCE = "store.advance"
    #: The same while the run compensates.
    ADVANCE_UNDO = "store.advance_undo"
    #: An outcome that a foreign producer published on the bus.
    RECEIVE = "store.receive"
    #: An outcome that came twice or too late is put down (rules S5, S23).
    LATE = "store.late"
    #: The sweep gives an attempt up: lost, over its limit, or never taken.
    GIVE_UP = "store.give_up"
    #: The same for an undo.
    GIVE_UP_UNDO = "store.give_up_undo"
    #: The caller asks a run to stop. It repeats the request when in doubt.
    CANCEL = "store.cancel"

    #: A person pauses, resumes, terminates or takes back a run, or settles what waits for one.
    OPERATE = "store.operate"
    #: A person moves a timer of a step, or the deadline of the run. He asks again when in doubt.
    UPDATE_TIMER = "store.update_timer"
    #: A signal is put down, and what waits for it goes on. Its sender repeats it, with its key, when in doubt.
    SIGNAL = "store.signal"
    #: A sleep is over, or a wait goes on without its signal.
    COMPLETE = "store.complete"
    #: Somebody sets what a run is found by. He repeats it when in doubt.
    ATTRIBUTES = "store.attributes"

    # --- other writes to the store ---

    #: A worker asks for one of the slots of a limit, or keeps the one it has.
    TAKE_SLOT = "store.take_slot"
    #: The same for an undo.
    TAKE_SLOT_UNDO = "store.take_slot_undo"
    #: A worker gives its slot back; it would run out with the lease.
    FREE_SLOT = "store.free_slot"
    #: The same for an undo.
    FREE_SLOT_UNDO = "store.free_slot_undo"

    #: A step asks for the lock on a business key, and gets it or a place in the line.
    LOCK = "store.lock"
    #: The sweep removes a lock whose run is over, or whose lease is.
    UNLOCK = "store.unlock"

    #: A worker takes an attempt under a lease.
    CLAIM = "store.claim"
    #: The same for an undo.
    CLAIM_UNDO = "store.claim_undo"
    #: A worker extends its lease.
    RENEW = "store.renew"
    #: The same for an undo.
    RENEW_UNDO = "store.renew_undo"
    #: A worker begins with the calls of an attempt. It asks again when in doubt.
    JOURNAL_OPEN = "store.journal_open"
    #: The same for an undo.
    JOURNAL_OPEN_UNDO = "store.journal_open_undo"
    #: A worker writes down that it is about to call a model or a tool. In doubt it asks again with the call's number.
    JOURNAL_BEGIN = "store.journal_begin"
    #: The same for an undo.
    JOURNAL_BEGIN_UNDO = "store.journal_begin_undo"
    #: A worker writes down what it was answered. It does so again when in doubt.
    JOURNAL_FINISH = "store.journal_finish"
    #: The same for an undo.
    JOURNAL_FINISH_UNDO = "store.journal_finish_undo"
    #: A worker says which answers made its attempt fail.
    JOURNAL_REFUSE = "store.journal_refuse"
    #: The same for an undo.
    JOURNAL_REFUSE_UNDO = "store.journal_refuse_undo"
    #: A person has a step begin with an empty journal. He asks again when in doubt.
    JOURNAL_RESTART = "store.journal_restart"
    #: a person decides upon a call
    JOURNAL_DECIDE = "store.journal_decide"
    #: A worker writes down what its step says. It does so again when in doubt.
    STREAM_APPEND = "store.stream_append"
    #: The same for an undo.
    STREAM_APPEND_UNDO = "store.stream_append_undo"
    #: A worker says that a call that it has begun is not made for now. It says so again when in doubt.
    JOURNAL_WITHHOLD = "store.journal_withhold"
    #: The same for an undo.
    JOURNAL_WITHHOLD_UNDO = "store.journal_withhold_undo"
    #: A worker sets aside what a call may cost. In doubt it does so again, by the call.
    BUDGET_RESERVE = "store.budget_reserve"
    #: The same for an undo.
    BUDGET_RESERVE_UNDO = "store.budget_reserve_undo"
    #: A worker says what a call has cost. What nobody says that of counts as spent.
    BUDGET_SETTLE = "store.budget_settle"
    #: The same for an undo.
    BUDGET_SETTLE_UNDO = "store.budget_settle_undo"
    #: The sweep sends an attempt out: its timer has come, or its message was lost. Or a worker gives one back, because
    #: a limit is reached, for a timer to send it out.
    DISPATCH = "store.dispatch"
    #: The same for an undo: a lost link, too.
    DISPATCH_UNDO = "store.dispatch_undo"
    #: The sweep leases what is due.
    TAKE_DUE = "store.take_due"
    #: A worker says which messages it has taken and not begun with.
    HOLD = "store.hold"
    #: An entry is looked at at another time: later, as its message may still wait in another broker; or now, as the
    #: parent of its run has gone.
    POSTPONE = "store.postpone"
    #: A start that has waited long in another broker than the store goes on among what is consumed before it.
    RAISE_START = "broker.raise_start"
    #: The sweep drops an entry that asks for nothing any more.
    DISCARD = "store.discard"
    #: The parent of a killed pool child makes its lease due at once.
    EXPIRE = "store.expire"
    #: The sweep removes a run whose retention is over.
    FORGET = "store.forget"
    #: Events of a run are put into the archive, before they leave the run's history.
    ARCHIVE = "store.archive"
    #: They leave it.
    TRIM_HISTORY = "store.trim_history"
    #: A payload that is to be kept apart is put into a store of its own, before the commit that refers to it.
    PUT_APART = "store.put_apart"
    #: What a run has in such a store is removed, before the run.
    FORGET_APART = "store.forget_apart"
    #: Somebody erases a run that is over. He repeats it when in doubt.
    DELETE = "store.delete"
    #: An event that belongs to no run or attempt is kept in the dead letters.
    BURY = "store.bury"
    #: Somebody says what he thinks of what an agent has done. He repeats it when in doubt.
    EXAMPLES_FEEDBACK = "store.examples_feedback"
    #: Somebody erases what a run that is gone has left to learn from. He repeats it when in doubt.
    EXAMPLES_FORGET = "store.examples_forget"
    #: A worker drops what is too old to be learned from; the next one does so, too.
    EXAMPLES_TIDY = "store.examples_tidy"
    #: A worker drops what belongs to no run and is not needed any more; the next one does so, too.
    TIDY = "store.tidy"
    #: The first user of a store writes down over how many partitions runs are spread.
    PARTITIONS = "store.partitions"
    #: A worker process that starts writes down what whoever sends steps has to know of its workers.
    ANNOUNCE = "store.announce"

    #: A schedule has come as far as this tick, whose run is there.
    TICK = "store.tick"
    #: An operator pauses a schedule, or has it go on. He repeats it when in doubt.
    PAUSE_SCHEDULE = "store.pause_schedule"

    #: A program that a worker has learned is kept. Whoever keeps it does so again, with its token, when in doubt.
    PROGRAM_ADD = "store.program_add"
    #: A program is put in place, or taken out of it. It is done again when in doubt.
    PROGRAM_PLACE = "store.program_place"

    # --- messages that no commit pushes ---

    #: An attempt goes out through a broker that is not the store's database, after its commit.
    PUBLISH = "broker.publish"
    #: The sweep publishes it (again): nobody claimed it, or its timer has come.
    PUBLISH_AGAIN = "broker.publish_again"
    #: The orchestrator's message through the broker's client.
    ORCHESTRATE = "broker.orchestrate"
    #: Celery publishes the next undo as the link of the one before.
    LINK = "broker.link"
    #: The same in queued mode, where the link is the orchestrator's message.
    LINK_ORCHESTRATE = "broker.link_orchestrate"
    #: A worker that shuts down gives messages back that it had not started.
    GIVE_BACK = "broker.give_back"

    # --- the event bus ---

    #: A producer publishes an event. It publishes it again when in doubt.
    BUS_APPEND = "bus.append"
    #: The first reader makes the consumer group.
    BUS_GROUP = "bus.group"
    #: A worker takes events; they lie with it until it acknowledges them.
    BUS_READ = "bus.read"
    #: A worker takes over what another one left unacknowledged.
    BUS_TAKE_OVER = "bus.take_over"
    #: A worker acknowledges an event whose outcome is committed.
    BUS_ACK = "bus.ack"
    #: An entry that nobody can read goes to the bus's dead letters.
    BUS_BURY = "bus.bury"
    #: Old entries are dropped.
    BUS_TRIM = "bus.trim"


#: What stands around every write where a test wants it to (`multiagents.testing.faults`); None outside of tests.
injector: Callable[[WriteSite, Callable[[], Any]], Any] | None = None


def write(site: WriteSite, action: Callable[[], _T]) -> _T:
    """Make a write, by its name; where no injector is installed, call the action and nothing else.

    >>> write(WriteSite.BUS_ACK, lambda: 1)
    1
    """
    if injector is None:
        return action()
    answer: _T = injector(site, action)
    return answer
