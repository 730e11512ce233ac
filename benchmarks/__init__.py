"""Measure what a step costs here and on plain Celery, side by side: ``python -m benchmarks``.

The rules that keep the comparison honest:

1. Both sides do the same no-op work under the same conditions (`conditions`): one server each, started alike, one
   worker each with the same flags, the same Celery settings.
2. They take turns. Within a round every workload runs on one side and right after it on the other, and the order is
   turned round from one round to the next. A ratio is taken within a round; what is reported is the median of those.
3. Time is taken where the work happens: the last step of a run writes the clock to a file (`stopwatch`), in the same
   way on both sides, without a word to the server under test.
4. The CPU of every process counts: client, worker, pool children, server.
"""
