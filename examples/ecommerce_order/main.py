"""36 orders at once on a real worker: a payment's process is killed in the middle, and the books are checked.

``python -m examples.ecommerce_order.main``, from the project's folder. It kills a process of its worker, so it always
starts a Valkey and a worker of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from examples._support import model
from examples._support.board import Board, Followed, outcomes, read_cases
from examples._support.pictures import bars_of
from examples._support.scene import Scene, run
from examples._support.shop import Shop, check_books
from examples.ecommerce_order.workflow import ecommerce_order

#: The orders, and how each is to end.
ORDERS = Path(__file__).with_name("orders.jsonl")
#: Seconds without a sign of life after which an attempt counts as lost: short, so that recovery can be watched.
LEASE = "3"
#: A payment is killed once so many cards have been charged.
KILL_AFTER = 6


def story(scene: Scene) -> None:
    """Start every order, kill the process of a payment, and check how each order ended, and the shop's books."""
    shop = Shop()
    cases = read_cases(Path(scene.options.orders or ORDERS))
    board = Board([Followed(case, scene.start(ecommerce_order, case.id, **case.order)) for case in cases])
    scene.say(f"{len(cases)} orders are started")
    board.follow(scene, meanwhile=lambda: kill_a_payment(scene, shop, board))

    scene.print()
    if board.spotlight is not None:
        scene.show(board.spotlight.run, "the payment whose process was killed")
    longest = max(board.runs, key=lambda followed: len(followed.named("compensated")))
    scene.show(longest.run, longest.case.about)
    verdicts = board.verdicts()
    scene.print(outcomes(verdicts, scene.console.width))

    completed = {each.case.id: each.case.order["total_amount"] for each in board.runs if each.status == "completed"}
    wrong = ", ".join(f"order {verdict.case_id}" for verdict in verdicts if not verdict.as_expected)
    scene.check(f"all {len(cases)} orders end as expected", not wrong, wrong or f"{len(completed)} completed")
    scene.checks += check_books(shop, completed)
    check_the_confirmations(scene, board)
    check_the_killed_payment(scene, shop, board.spotlight)


def kill_a_payment(scene: Scene, shop: Shop, board: Board) -> None:
    """Once, kill -9 the process of a payment that has charged the card and has not told anybody yet."""
    assert scene.worker is not None, "run() was told that this example kills its worker"
    if board.spotlight is not None or shop.charges_made() < KILL_AFTER:
        return
    for busy in shop.busy():
        followed = board.of(busy.order_id)
        first_try = len(shop.journal(busy.order_id, "charge")) == 1
        if not first_try or followed.case.expect.status != "completed" or busy.pid not in scene.worker.children():
            continue
        # Held first, then looked at again: otherwise it might finish between the look and the kill.
        os.kill(busy.pid, signal.SIGSTOP)
        if busy not in shop.busy():
            os.kill(busy.pid, signal.SIGCONT)
            continue
        scene.worker.kill_child(busy.pid)
        scene.say(f"{busy.order_id}  kill -9 {busy.pid}: its card is charged, and nobody was told yet")
        board.spotlight, board.note = followed, f"kill -9 {busy.pid} while it was paying {busy.order_id}"
        return


def check_the_confirmations(scene: Scene, board: Board) -> None:
    """Each order that came that far has a text that names the customer. A real model may be asked twice, or be free."""
    wrong, calls = [], 0
    for each in board.runs:
        seen = each.run.describe()
        scene.see(seen)
        if (used := seen.steps["confirmation"].usage) is None:
            continue
        calls += used.calls
        names = each.case.order["shipping_info"]["name"] in seen.context["confirmation_message"]
        if (used.calls, names) != (1, True) and not scene.is_real:
            wrong.append(each.case.id)
    figures = ", ".join(wrong) or f"{calls} calls of {model.in_words(scene.models)}"
    scene.check("each confirmation was asked for once, and names the customer", not wrong, figures)


def check_the_killed_payment(scene: Scene, shop: Shop, killed: Followed | None) -> None:
    """The payment was tried again, with the same key: so the provider gave the same answer, and charged once."""
    if killed is None:
        scene.check("a payment is killed", False, "none was busy at the right moment")
        return
    lost = any(bar.step == "payment" and bar.outcome == "lost" for bar in bars_of(killed.run.history()))
    answers = [call["answer"] for call in shop.journal(killed.case.id, "charge")]
    scene.check(
        f"{killed.case.id} survived the kill, and its card is charged once",
        killed.status == "completed" and lost and answers.count("done") == 1 and "repeated" in answers,
        f"the provider was asked {len(answers)} times: {', '.join(answers)}",
    )


if __name__ == "__main__":
    options = {"--orders": "the orders and how they are to end (JSONL)"}
    settings = {"MULTIAGENTS_LEASE": LEASE}
    sys.exit(run("ecommerce_order", story, kills=True, asks=True, settings=settings, options=options))
