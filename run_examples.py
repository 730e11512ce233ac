"""Run every example, each in a process of its own, and sum up: ``python run_examples.py``.

The exit code is 0 when all of them ended as they should.
"""

from __future__ import annotations

import subprocess
import sys
import time

EXAMPLES = ("examples.ecommerce_order.main",)
#: Seconds that an example may take.
TIMEOUT = 300.0


def run(module: str) -> str:
    """Run one example; how it went, in words."""
    try:
        code = subprocess.run([sys.executable, "-m", module], timeout=TIMEOUT, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"took longer than {TIMEOUT:g} s"
    return "ok" if code == 0 else f"failed with exit code {code}"


def main() -> int:
    """Run all of them; returns the exit code."""
    summary = []
    for module in EXAMPLES:
        print(f"== {module}", flush=True)
        began = time.monotonic()
        summary.append((module, run(module), time.monotonic() - began))
    print("\nSummary")
    for module, outcome, seconds in summary:
        print(f"  {module:<36} {outcome} ({seconds:.1f} s)")
    return 0 if all(outcome == "ok" for _, outcome, _ in summary) else 1


if __name__ == "__main__":
    sys.exit(main())
