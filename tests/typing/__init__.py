"""What type checkers see of the public names: checked by mypy with the rest of the code, and never run.

Where a mistake must be seen stands ``# type: ignore[...]``; one that is not needed is itself an error.
"""
