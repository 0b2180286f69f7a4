"""What a text of SQL does, as far as that can be told without a parser: wrong only towards caution."""

from __future__ import annotations

import re

__all__ = ["commits", "ends", "reads", "runs"]

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


def _bare(text: str) -> str:
    """Without comments, and without what stands in quotes."""
    return _QUOTED.sub(lambda m: "''" if m["text"] else " quoted " if m["name"] else " ", text)


def commits(text: str) -> bool:
    """Whether a text may commit a transaction; rather yes than no."""
    return _ESCAPED in text or bool(_COMMITS.search(_bare(text)))


def reads(text: str) -> bool:
    """Whether a text changes nothing for certain; a function that we don't know may."""
    bare = _bare(text)
    if not bare.strip():
        return True
    if _ESCAPED in text:
        return False
    called = {each.lower() for each in _CALLED.findall(bare)}
    return bool(_READS.match(bare)) and not _WRITES.search(bare) and called <= _HARMLESS


def runs(text: str) -> bool:
    """Whether a text runs a procedure, which may commit where no transaction is open."""
    return bool(_RUNS.search(_bare(text)))


def ends(text: str) -> bool:
    """Whether a text is a COMMIT and nothing else."""
    return bool(_ENDS.match(_bare(text)))
