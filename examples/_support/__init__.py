"""The stage of the examples. To read a saga, you need nothing of it: begin with an example's `workflow.py`.

- `world`: who is asked for something outside, and what came of it; all that an example's `workers.py` needs.
- `shop`: the same for the order example, which has stock, money and parcels; and its books.
- `model`: which model agents ask: a real one where there is a key, else a stand-in; `stand_in` is that one.
- `scene`: what a `main.py` plays on: a Valkey, a worker, runs, failures outside, checks; and its command line.
- `pictures`: what is drawn on the terminal, the mirror timeline of a run above all.
- `board`: many runs at once, and how each of them is to end.
"""
