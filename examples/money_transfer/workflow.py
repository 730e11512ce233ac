"""The transfer as a saga: what is done before, at and behind the point of no return."""

from __future__ import annotations

from examples.money_transfer.workers import (
    check_transfer,
    debit_account,
    give_back,
    report_transfer,
    settle_transfer,
    write_receipt,
)
from multiagents import WorkflowBuilder

money_transfer = (
    WorkflowBuilder("money_transfer", version="1", strict=True)
    .add_step("check", check_transfer, no_compensation="it reads, and changes nothing")
    .add_step("debit", debit_account, compensation=give_back)
    .add_step("settle", settle_transfer, pivot=True)
    .add_step("report", report_transfer)
    .add_step("receipt", write_receipt)
    .build()
)
