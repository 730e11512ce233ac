"""Three hundred greenlets of one process on one store: ``python -m tests.support.apps.greenlets calls|waits URL``."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import gevent  # noqa: E402
from celery import Celery  # noqa: E402

from multiagents import WorkflowBuilder, init_app  # noqa: E402
from multiagents.redis import patient_client  # noqa: E402


def calls(url: str) -> None:
    """Each asks often, runs into a time-out now and then, and is to get its own answers and no other's."""
    client = patient_client(url)

    def ask(number: int) -> bool:
        for turn in range(10):
            mine = f"{number} {turn}"
            with gevent.Timeout(0.002 * (turn % 3) or None, False):
                client.execute_command("EVAL", "for i = 1, 20000 do end return 1", 0)
                client.ask("ECHO", "late")
            for asked in (client.ask, client.execute_command):
                if asked("ECHO", mine) != mine:
                    return False
        return True

    asking = [gevent.spawn(ask, number) for number in range(300)]
    gevent.joinall(asking, raise_error=True)
    print(len(asking), "right" if all(each.value for each in asking) else "wrong")


def waits(url: str) -> None:
    """Each waits for a run of its own."""
    orchestrator = init_app(Celery("greenlets", broker=url, set_as_current=False))
    told = WorkflowBuilder("told").add_wait("answer", "answer").build(register=False)
    runs = [orchestrator.start(told, {}) for _ in range(300)]
    waiting = [gevent.spawn(run.result, 60) for run in runs]
    gevent.sleep(0.5)
    for number, run in enumerate(runs):
        run.signal("answer", {"number": number})
    gevent.joinall(waiting, raise_error=True)
    found = [each.value["answer"]["number"] for each in waiting]
    print(len(waiting), "right" if found == list(range(300)) else "wrong")


if __name__ == "__main__":
    {"calls": calls, "waits": waits}[sys.argv[1]](sys.argv[2])
