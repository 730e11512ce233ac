"""Three hundred greenlets of one process on one store: ``python -m tests.support.apps.greenlets calls URL``."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import gevent  # noqa: E402

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


if __name__ == "__main__":
    {"calls": calls}[sys.argv[1]](sys.argv[2])
