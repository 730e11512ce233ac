"""An index of a code base: the functions and classes of its Python files, and the sections of its Markdown files.

Passages are ranked by BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009; k1 = 1.2, b = 0.75).
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Characters of a passage that are shown: a class may be long.
MOST = 1200
K1, B = 1.2, 0.75


@dataclass(frozen=True)
class Passage:
    """A function, a class, or a section.

    Attributes:
        source: where it is, as it is cited: ``shop/orders.py:12``.
        name: ``Order.total``, or the section's heading.
        text: what stands there.
    """

    source: str
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """What it is found by; its name counts three times."""
        return words_of(" ".join([self.text, *[self.name] * 3]))


def words_of(text: str) -> list[str]:
    """The words of a text; ``reserve_stock`` and ``reserveStock`` are two words each.

    >>> words_of("Where is reserve_stock?")
    ['where', 'is', 'reserve', 'stock']
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", text)]


class Index:
    """The passages of a folder.

    Args:
        root: the folder; hidden folders in it are passed over.
        folders: those in it that are read; none for all.
    """

    def __init__(self, root: Path, folders: Iterable[str] = ()) -> None:
        places = [root / folder for folder in folders] or [root]
        files = sorted(file for place in places for kind in ("*.py", "*.md") for file in place.rglob(kind))
        self.passages = [
            passage
            for file in files
            if not any(part.startswith(".") for part in file.relative_to(root).parts)
            for passage in _read(file, file.relative_to(root).as_posix())
        ]
        self._counts = [Counter(passage.words) for passage in self.passages]
        self._length = sum(counts.total() for counts in self._counts) / max(1, len(self._counts))
        self._with: Counter[str] = Counter(word for counts in self._counts for word in counts)

    def find(self, query: str, most: int = 4) -> list[Passage]:
        """The passages that fit a query best."""
        wanted = set(words_of(query))
        scored = [
            (self._score(wanted, counts), passage) for counts, passage in zip(self._counts, self.passages, strict=True)
        ]
        scored.sort(key=lambda each: (-each[0], each[1].source))
        return [passage for score, passage in scored[:most] if score > 0]

    def _score(self, wanted: set[str], counts: Counter[str]) -> float:
        score, length = 0.0, K1 * (1 - B + B * counts.total() / self._length)
        for word in wanted & counts.keys():
            rarity = math.log(1 + (len(self.passages) - self._with[word] + 0.5) / (self._with[word] + 0.5))
            score += rarity * counts[word] * (K1 + 1) / (counts[word] + length)
        return score


def _read(file: Path, name: str) -> Iterator[Passage]:
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".md":
        yield from _sections(text, name)
        return
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return  # it is somebody's template, or of another Python
    yield from _definitions(tree, text.splitlines(), name, "")


def _definitions(node: ast.AST, lines: list[str], file: str, inside: str) -> Iterator[Passage]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            text = "\n".join(lines[first - 1 : child.end_lineno])
            yield Passage(f"{file}:{child.lineno}", f"{inside}{child.name}", text[:MOST])
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, lines, file, f"{inside}{child.name}.")


def _sections(text: str, file: str) -> Iterator[Passage]:
    heading, first, body, is_code = "", 1, list[str](), False
    for number, line in enumerate([*text.splitlines(), "# "], start=1):
        is_code ^= line.startswith("```")
        if line.startswith("#") and not is_code:
            if "".join(body).strip():
                yield Passage(f"{file}:{first}", heading, "\n".join([heading, *body])[:MOST])
            heading, first, body = line.lstrip("# "), number, []
        else:
            body.append(line)
