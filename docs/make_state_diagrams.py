"""Write docs/states.md: the prose is here, the diagrams are drawn from the engine's own transition tables.

Run it as ``.venv/bin/python docs/make_state_diagrams.py``, from anywhere.
"""

from __future__ import annotations

from pathlib import Path

from multiagents.workflow.state import ACTIVITY, RUN, ActivityStatus, RunStatus

PAGE = """# The states of a run and of a step

Drawn from the transition tables `RUN` and `ACTIVITY` of the engine by `docs/make_state_diagrams.py`; a test compares
this page with them. The rules (S1, S5, ...) are those that the tests are named for.

## A run

`pending` is announced and not yet stored; `paused` waits for a person, also where a cancel has come before: a cancel
of the paused run says that what nobody knows is to be undone (S3, S20). A run that went back is reopened only by a
success that came too late, for its effect may have come after the undo (S5). What is cancelled, or past its deadline,
goes back like what failed, and ends under its own name (S18).

{run}

| status | meaning |
|---|---|
| `pending` | announced, and not yet in the store |
| `running` | going forward |
| `paused` | somebody holds it, or a person has to settle a step: unknown outcome, or failed behind a pivot |
| `compensating` | going back: what is in flight settles, then what was done is undone |
| `completed` | every step succeeded or was skipped |
| `compensated` | a step failed, or a completed run was taken back; all that has a compensation was undone |
| `compensated_partially` | as compensated, but an operator skipped an undo |
| `compensation_failed` | an undo is parked: it failed for good or is in doubt; or it was abandoned |
| `cancelled` | cancelled on request, after undo |
| `terminated` | stopped on request, without undo |
| `timed_out` | its deadline passed, after undo |
| `failed` | a step failed, and nothing that took effect had a compensation |

## Doing a step, and undoing it

Both are the same machine, each with attempts of its own. A step is as bad as the worst of its attempts: a definite
failure after an attempt in doubt moves it as `doubt` does (S1b), and so does taking back an attempt nobody had claimed.
A step with `on_unknown="resolve"` goes from `unknown` to one more attempt, which its probe makes (S3, S13): `result`
and `failure` are then what the probe found, whatever was in doubt before, and `doubt` leaves the step to a person.

{activity}

| trigger | what happened |
|---|---|
| command | an attempt is dispatched, or due after a delay |
| result | the attempt succeeded |
| failure | it failed for certain, also before it was asked for (its `when` raised); or its probe found no effect |
| doubt | it may have taken effect: lost, timed out, abandoned, or its worker could not tell |
| skip | its `when` was false |
| recall | a first attempt was taken back before anybody claimed it |
| takeover | the run is a fork, and the one that it was forked from had done it (S22) |

Only an undo goes from `succeeded` to another attempt (S5); only a step is skipped, taken back or over.
"""


def run_diagram() -> str:
    """The table of a run's statuses as a mermaid diagram."""
    lines = ["[*] --> pending"]
    lines += [f"{status} --> {to}" for status in RUN for to in sorted(RUN[status], key=list(RunStatus).index)]
    lines += [f"{status} --> [*]" for status in RunStatus if status.is_end and _reachable(status)]
    return _mermaid(lines)


def activity_diagram() -> str:
    """The table of an activity as a mermaid diagram."""
    lines = [f"[*] --> {_name(ActivityStatus.IDLE)}"]
    lines += [f"{_name(progress)} --> {_name(to)}: {trigger}" for (progress, trigger), to in ACTIVITY.items()]
    return _mermaid(lines)


def page() -> str:
    """The page as it should be."""
    return PAGE.format(run=run_diagram(), activity=activity_diagram())


def _reachable(status: RunStatus) -> bool:
    return any(status in targets for targets in RUN.values())


def _name(progress: ActivityStatus) -> str:
    return progress.name.lower()


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


if __name__ == "__main__":
    Path(__file__).with_name("states.md").write_text(page())
