"""The demo: all orders at once on a real worker, a payment's process killed in the middle, and the books checked.

``python -m examples.ecommerce_order.demo``, from the project's folder. It starts a Valkey and a Celery worker of its
own and stops them at its end. The exit code is 0 only when every order ended as expected, the killed payment
recovered, and the shop's books add up; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from examples.books import books
from examples.ecommerce_order.ledger import ledger_report
from examples.ecommerce_order.order import ORDERS, Case, read_cases
from examples.ecommerce_order.shop import DATABASE, PACE, Shop, Work
from examples.ecommerce_order.view import board, legend, outcomes
from examples.ecommerce_order.watch import Followed, Watch
from examples.stage import StageError, WorkerProcess, end_on_sigterm, new_console, own_folder, own_stage
from examples.timeline import timeline
from multiagents.exceptions import MultiAgentsError

#: Seconds without a sign of life after which an attempt counts as lost: short, so that recovery can be watched.
LEASE = 3
#: How slow the outside world is: slow enough to watch.
WATCHABLE = "1.5"
#: Seconds between two looks at the runs.
TICK = 0.1
#: A payment is killed once so many cards have been charged.
KILL_AFTER = 6
#: Seconds that the live picture stays with the killed run after its end.
LINGER = 2.0
#: Seconds on top of the deadline after which the demo ends itself by force.
GRACE = 20.0


class DemoError(Exception):
    """The demo cannot go on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    options = _options(arguments)
    end_on_sigterm()
    console = new_console()
    try:
        with own_folder(options.data, "demo") as folder:
            environ = {
                DATABASE: str(folder / "shop.db"),
                "MULTIAGENTS_LEASE": str(LEASE),
                PACE: os.environ.get(PACE, WATCHABLE),
            }
            shop = Shop(folder / "shop.db")
            console.print("Starting a Valkey and a Celery worker with two processes ...", style="dim")
            with own_stage(folder, environ) as worker, _forced_end(options.deadline + GRACE, worker):
                demo = Demo(console, shop, worker, plain=options.plain or not console.is_terminal)
                return demo.run(read_cases(options.orders), options.deadline)
    except KeyboardInterrupt:
        console.print("\nStopped. The worker and the Valkey are stopped too.")
        return 130
    except (DemoError, StageError, MultiAgentsError) as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        return 1


class Demo:
    """One run of the demo.

    Args:
        console: where it shows what happens.
        shop: the outside world.
        worker: the Celery worker, one of whose children is killed.
        plain: print lines in place of a live picture.
    """

    def __init__(self, console: Console, shop: Shop, worker: WorkerProcess, *, plain: bool) -> None:
        self.console = console
        self.shop = shop
        self.worker = worker
        self.plain = plain
        self.began = time.monotonic()
        self.killed: Work | None = None
        self.killed_at = 0.0
        self.shown: Followed | None = None
        self.shown_since = 0.0

    def run(self, cases: Sequence[Case], deadline: float) -> int:
        """Start every order, follow them to their ends, and judge."""
        watch = self._start(cases)
        give_up = time.monotonic() + deadline
        if self.plain:
            self._follow(watch, give_up, None)
        else:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                self._follow(watch, give_up, live)
        return self._judge(watch)

    def _start(self, cases: Sequence[Case]) -> Watch:
        # Imported only now: the app takes its broker from the environment, which is set once the Valkey runs.
        from celery_app import orchestrator
        from examples.ecommerce_order.workflow import ecommerce_order

        stamp = uuid4().hex[:6]
        began = time.monotonic()
        runs = [
            Followed(case, orchestrator.start(ecommerce_order, case.order, transaction_id=f"{case.id}-{stamp}"))
            for case in cases
        ]
        self._say(f"{len(runs)} orders started in {time.monotonic() - began:.2f} s")
        return Watch(runs)

    def _follow(self, watch: Watch, give_up: float, live: Live | None) -> None:
        while True:
            for followed, change in watch.refresh():
                if self.plain:
                    self._say(f"{followed.case.id}  {change}")
            if self.killed is None:
                self._kill_a_payment(watch)
            if live is not None:
                live.update(self._picture(watch), refresh=True)
            if not watch.unfinished:
                return
            if time.monotonic() > give_up or not self.worker.is_running:
                ids = ", ".join(followed.case.id for followed in watch.unfinished)
                why = "time is up" if self.worker.is_running else "the worker has ended"
                raise DemoError(
                    f"{why}, and these orders have not ended: {ids}; the end of {self.worker.log_file}:\n"
                    f"{self.worker.log_tail()}"
                )
            time.sleep(TICK)

    def _kill_a_payment(self, watch: Watch) -> None:
        """Kill -9 the process of a payment that has charged the card and has not told anybody yet."""
        if self.shop.charges_made() < KILL_AFTER:
            return
        for work in self.shop.busy_after_charge():
            expect = watch.of_order(work.order_id).case.expect
            if expect.status != "completed" or work.attempt > 1 or not self.worker.owns(work.pid):
                continue
            # Held first, then looked at again: otherwise it might finish between the look and the kill.
            os.kill(work.pid, signal.SIGSTOP)
            if work not in self.shop.busy_after_charge():
                os.kill(work.pid, signal.SIGCONT)
                continue
            os.kill(work.pid, signal.SIGKILL)
            self.killed, self.killed_at = work, time.monotonic()
            self._say(f"{work.order_id}  kill -9 {work.pid}: its card is charged, and nobody was told yet")
            return

    def _picture(self, watch: Watch) -> RenderableType:
        ended = len(watch.runs) - len(watch.unfinished)
        parts: list[RenderableType] = [
            Text(f"{self._clock()}  {ended} of {len(watch.runs)} orders have ended", style="bold"),
            board([followed.row() for followed in watch.runs]),
            legend(),
        ]
        if self.killed is not None:
            parts.append(
                Text(f"kill -9 {self.killed.pid} while it was paying {self.killed.order_id}", style="bold yellow")
            )
        focus = self._focus(watch)
        if focus is not None:
            parts.append(self._timeline(focus, now=None if focus.is_over else datetime.now(UTC)))
        return Group(*parts)

    def _timeline(self, followed: Followed, title: str = "", now: datetime | None = None) -> Text:
        heading = f"{title}: {followed.case.id}" if title else f"{followed.case.id}: {followed.case.about}"
        return timeline(heading, followed.status, list(followed.steps), followed.bars(), self.console.width, now=now)

    def _focus(self, watch: Watch) -> Followed | None:
        """The run to show in full: the killed one while it recovers, else the one last seen on its way back."""
        if self.killed is not None:
            killed = watch.of_order(self.killed.order_id)
            if not killed.is_over or time.monotonic() - killed.changed_at < LINGER:
                return killed
        if self.shown is None or time.monotonic() - self.shown_since > LINGER:
            back = [followed for followed in watch.runs if followed.named("compensating", "compensated")]
            self.shown = max(back or watch.runs, key=lambda followed: followed.changed_at, default=None)
            self.shown_since = time.monotonic()
        return self.shown

    def _judge(self, watch: Watch) -> int:
        verdicts = watch.verdicts()
        lines = ledger_report(self.shop, watch.completed())
        self.console.print()
        for title, order_id in self._worth_seeing(watch):
            followed = watch.of_order(order_id)
            self.console.print(self._timeline(followed, title), no_wrap=True, overflow="ellipsis")
        self.console.print(outcomes(verdicts, self.console.width), "")
        self.console.print(books(lines), "")
        recovery = self._recovery(watch)
        wrong = [f"order {verdict.order_id}" for verdict in verdicts if not verdict.as_expected]
        wrong += [line.rule for line in lines if not line.holds]
        if recovery:
            wrong.append(recovery)
        right = sum(verdict.as_expected for verdict in verdicts)
        if wrong:
            self.console.print(Text(f"This did not add up: {'; '.join(wrong)}", style="bold red"))
            return 1
        self.console.print(Text(f"All of it added up: {right} orders, {self._clock().strip()}.", style="bold green"))
        self._what_next()
        return 0

    def _worth_seeing(self, watch: Watch) -> Iterator[tuple[str, str]]:
        if self.killed is not None:
            yield "The payment whose process was killed", self.killed.order_id
        longest = max(watch.runs, key=lambda followed: len(followed.named("compensated")), default=None)
        if longest is not None and longest.named("compensated"):
            yield "The order with the most to undo", longest.case.id

    def _recovery(self, watch: Watch) -> str:
        """What is wrong with the recovery of the killed payment; nothing when it is as promised."""
        if self.killed is None:
            return "no payment was killed: none was busy at the right moment"
        followed = watch.of_order(self.killed.order_id)
        lost = [bar for bar in followed.bars() if bar.step == "payment" and bar.outcome == "lost"]
        charges = [entry["answer"] for entry in self.shop.journal_of(self.killed.order_id) if entry["call"] == "charge"]
        took = followed.changed_at - self.killed_at
        times = {1: "once"}.get(charges.count("done"), f"{charges.count('done')} times")
        self.console.print(
            f"{followed.case.id} was killed in attempt {self.killed.attempt} and {followed.status} {took:.1f} s later; "
            f"the provider was asked {len(charges)} times and charged the card {times}.\n",
            highlight=False,
        )
        if followed.status != "completed" or not lost or charges.count("done") != 1 or "repeated" not in charges:
            return f"the killed payment of {followed.case.id}: {followed.status}, charges: {', '.join(charges)}"
        return ""

    def _what_next(self) -> None:
        python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
        commands = (
            (f"{python} -m examples.ecommerce_order.main", "four orders, one after the other"),
            (f"less {os.path.relpath(self.worker.log_file)}", "what the worker saw of all this"),
            ("docker compose up", "a worker of your own, with Flower on http://localhost:5555"),
        )
        self.console.print("\nNext:")
        for command, what in commands:
            self.console.print(f"  {what}:\n    [bold]{command}[/bold]", highlight=False, soft_wrap=True)

    def _say(self, words: str) -> None:
        self.console.print(f"{self._clock()}  {words}", highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        return f"{time.monotonic() - self.began:5.1f} s"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.ecommerce_order.demo", description="Run the order demo.")
    parser.add_argument("--orders", type=Path, default=ORDERS, help="the orders and how they are to end (JSONL)")
    parser.add_argument("--data", type=Path, default=Path(".multiagents"), help="where data and logs go")
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds after which the demo gives up")
    parser.add_argument("--plain", action="store_true", default="CI" in os.environ, help="lines, no live picture")
    return parser.parse_args(arguments)


@contextmanager
def _forced_end(seconds: float, worker: WorkerProcess) -> Iterator[None]:
    """End this process for good if the block takes longer: a demo may fail, but never hang."""

    def end() -> None:
        print(f"The demo hung for {seconds:g} s; it ends itself.", file=sys.stderr, flush=True)
        worker.stop()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    sys.exit(main())
