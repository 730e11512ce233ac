"""A language model for tests: an HTTP server on loopback that says what it is told to, and counts what it is asked.

It speaks OpenAI's chat completions and Gemini, whole and streamed, with tools and usage; so the real client of a real
provider runs, without network, key or money::

    from multiagents.testing.lm_stub import LMStub, fields, rate_limited

    with LMStub() as stub:
        stub.reply(rate_limited(retry_after=1), fields(answer="Paris"))
        lm = dspy.LM("gemini/gemini-3.8-flash", api_base=stub.gemini_base, api_key="x", cache=False)
        with dspy.context(lm=lm):
            assert dspy.Predict("question -> answer")(question="Capital of France?").answer == "Paris"
        assert stub.count == 2

In tests, the fixture ``lm_stub`` of `multiagents.testing.plugin` is one. Workers in other processes get its address,
as ``api_base``; it is one model for all of them. To kill a worker in the middle of its third call::

    stub.when("Alice").reply(react_agent(("find", {"name": "Alice"}), ("mail", {"to": "a@x"}), answer="done"))
    stub.hold(after=2)
    run = orchestrator.start("greet", {"name": "Alice"})
    stub.wait_for(3)
    worker.kill()
    stub.release()

What is scripted is looked through in this order: `LMStub.when`, `LMStub.reply`, `LMStub.answer_with`. A request that
none of them answers gets an error that says what came, and how to script it.

==========================================  ==================================================================
reply                                       what it is
==========================================  ==================================================================
a string, `text`, `fields`                  a text; output fields as DSPy's ``ChatAdapter`` reads them
`react`, `react_finish`, `react_agent`      a turn of ``ReAct``; its last; all of an agent's calls
`tool_call`                                 a native call of a tool
`stream`, `slow`                            in pieces; after a while
`truncated`, `empty`, `content_filter`      well-formed, and no answer
`rate_limited`, `server_error`,             an HTTP error
`unauthorized`, `context_overflow`
`hang`, `cut`, `garbage`                    nothing; half an answer; 200 with what is no JSON
==========================================  ==================================================================

What DSPy 3.4 makes of them, on both wires; `*` it tries again by itself, unless ``num_retries=0``:

==============================================  ==============================================================
``rate_limited`` *, ``server_error`` *          ``LMRateLimitError``, ``LMServerError``
``hang`` (past ``timeout=``) *, ``cut`` *       ``LMTransportError``
``unauthorized``, ``context_overflow``          ``LMAuthError``, ``ContextWindowExceededError``
``garbage``                                     ``LMProviderError``; streamed ``LMStreamAssemblyError``
``empty``, no fields, half a first field        ``AdapterParseError``, by default after a second request
``truncated`` in the last field                 none: the answer is taken for whole
``content_filter``                              ``AdapterParseError``; of Gemini ``LMInvalidRequestError``
nothing scripted                                ``LMInvalidRequestError``
==============================================  ==============================================================

As a process of its own, for an example that needs a model: ``python -m multiagents.testing.lm_stub --help``.
"""

from __future__ import annotations

from multiagents.testing.lm_stub.replies import (
    Problem,
    ProblemKind,
    Reply,
    Scripted,
    ToolCall,
    content_filter,
    context_overflow,
    cut,
    empty,
    fields,
    garbage,
    hang,
    rate_limited,
    react,
    react_agent,
    react_finish,
    server_error,
    slow,
    stream,
    text,
    tool_call,
    truncated,
    unauthorized,
)
from multiagents.testing.lm_stub.request import LMRequest
from multiagents.testing.lm_stub.stub import LMStub

__all__ = [
    "LMRequest",
    "LMStub",
    "Problem",
    "ProblemKind",
    "Reply",
    "Scripted",
    "ToolCall",
    "content_filter",
    "context_overflow",
    "cut",
    "empty",
    "fields",
    "garbage",
    "hang",
    "rate_limited",
    "react",
    "react_agent",
    "react_finish",
    "server_error",
    "slow",
    "stream",
    "text",
    "tool_call",
    "truncated",
    "unauthorized",
]
