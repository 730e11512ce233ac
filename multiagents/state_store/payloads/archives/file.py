"""An archive in a folder: a file of JSON lines for each run.

A line is ``[number, record]``. Lines are only ever added; of two with one number the later counts. A line that was cut
off (the machine lost power) is passed over: its event is still in the run's history, which it leaves after `append`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


class FileArchive:
    """Keep the older events of runs in files.

    Args:
        folder: where; it is made when it is first needed. All processes of a deployment have to see the same one.

    >>> import tempfile
    >>> archive = FileArchive(tempfile.mkdtemp())
    >>> archive.append("order-1", 0, ["a", "b"])
    >>> archive.read("order-1", 0, 9)
    ['a', 'b']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def append(self, transaction_id: str, first: int, records: Sequence[str]) -> None:
        """Keep events of a run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps([number, record])}\n" for number, record in enumerate(records, first))
        # One write to a file that is opened for appending: what others write at the same time stays whole. The line
        # break before it ends what may have been cut off.
        data = f"\n{lines}".encode()
        with self._path(transaction_id).open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(f"{file.name} took only a part of {len(data)} bytes; is the disk full?")
            os.fsync(file.fileno())

    def read(self, transaction_id: str, first: int, last: int) -> Sequence[str]:
        """Events of a run by number."""
        found: dict[int, str] = {}
        try:
            text = self._path(transaction_id).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        for line in text.splitlines():
            try:
                number, record = json.loads(line)
            except ValueError:
                continue
            found[number] = record
        return [found[number] for number in range(first, last) if number in found]

    def _path(self, transaction_id: str) -> Path:
        return self._folder / f"{transaction_id}.jsonl"
