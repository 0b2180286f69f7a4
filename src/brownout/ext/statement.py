"""What a text of SQL does, as far as that can be told without a parser: wrong only towards caution."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["commits", "ends", "reads", "runs"]

TEXTS_KEPT = 256  # a program has few texts, and asks each of them often
TEXT_CHARACTERS = 2000  # of one that is kept

_QUOTED = re.compile(
    r"(?P<text>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<name>\"(?:[^\"]|\"\")*\")"
    r"|--[^\n]*|/\*.*?\*/",
    re.DOTALL,
)
_ESCAPED = "\\'"  # where a quotation ends then, depends on how it began
_COMMITS = re.compile(r"(?:^|;)[\s(]*(?:commit|end|prepare\s+transaction)\b", re.IGNORECASE)
_RUNS = re.compile(r"(?:^|;)[\s(]*(?:call|do)\b", re.IGNORECASE)
_ENDS = re.compile(r"^\s*(?:commit|end)(?:\s+\w+)*\s*;?\s*$", re.IGNORECASE)
_READS = re.compile(r"^[\s(]*(?:select|show|set|reset|begin|start|rollback|abort|savepoint|release"
                    r"|declare|fetch|close|discard|listen|values|table|with)\b", re.IGNORECASE)  # fmt: skip
_WRITES = re.compile(r"\b(?:insert|update|delete|merge|into|call|execute)\b", re.IGNORECASE)
_CALLED = re.compile(r"([a-z_][\w.]*)\s*\(", re.IGNORECASE)
_HARMLESS = frozenset({
    "all", "and", "any", "array", "as", "avg", "coalesce", "count", "date_trunc", "exists", "from", "in",
    "lower", "max", "min", "not", "now", "on", "or", "over", "repeat", "select", "sum", "upper", "using",
    "values", "version", "when", "where",
})  # fmt: skip


class _What(NamedTuple):
    commits: bool
    runs: bool
    ends: bool
    reads: bool


def _judge(text: str) -> _What:
    # Without comments, and without what stands in quotes.
    bare = _QUOTED.sub(lambda m: "''" if m["text"] else " quoted " if m["name"] else " ", text)
    doubtful = _ESCAPED in text
    called = {each.lower() for each in _CALLED.findall(bare)}
    reads = bool(_READS.match(bare)) and not _WRITES.search(bare) and called <= _HARMLESS
    return _What(
        commits=doubtful or bool(_COMMITS.search(bare)),
        runs=bool(_RUNS.search(bare)),
        ends=bool(_ENDS.match(bare)),
        reads=not bare.strip() or (reads and not doubtful),
    )


_cached = lru_cache(TEXTS_KEPT)(_judge)


def _what(text: str) -> _What:
    return _cached(text) if len(text) <= TEXT_CHARACTERS else _judge(text)


def commits(text: str) -> bool:
    """Whether a text may commit a transaction; rather yes than no."""
    return _what(text).commits


def runs(text: str) -> bool:
    """Whether a text runs a procedure, which may commit where no transaction is open."""
    return _what(text).runs


def ends(text: str) -> bool:
    """Whether a text is a COMMIT and nothing else."""
    return _what(text).ends


def reads(text: str) -> bool:
    """Whether a text changes nothing for certain; a function that we don't know may."""
    return _what(text).reads
