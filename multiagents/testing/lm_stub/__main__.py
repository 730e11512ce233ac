"""Run the stub as a process of its own: ``python -m multiagents.testing.lm_stub --port 0 --script script.json``."""

from __future__ import annotations

import argparse
import signal
import sys

from multiagents.exceptions import ConfigurationError
from multiagents.testing.lm_stub.script import imported
from multiagents.testing.lm_stub.stub import LMStub


def main(argv: list[str] | None = None) -> int:
    """Print the address, then the two ``api_base``; answer until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m multiagents.testing.lm_stub",
        description="A stand-in for a language model on loopback, for OpenAI's chat completions and for Gemini.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default, for a free one")
    parser.add_argument("--script", metavar="FILE", help="JSON; see LMStub.load")
    parser.add_argument(
        "--answer-with", metavar="MODULE:FUNCTION", help="a function of the request; see LMStub.answer_with"
    )
    given = parser.parse_args(argv)
    # Blocked before there is a thread, so that none of them takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    stub = LMStub(given.host, given.port)
    try:
        if given.script:
            stub.load(given.script)
        if given.answer_with:
            stub.answer_with(imported(given.answer_with))
    except (ConfigurationError, OSError, ValueError) as error:
        print(f"the script cannot be used: {error}", file=sys.stderr)
        return 2
    with stub:
        print(stub.url, f"openai: {stub.openai_base}", f"gemini: {stub.gemini_base}", sep="\n", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
