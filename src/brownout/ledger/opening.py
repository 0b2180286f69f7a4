"""Which store a URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout.errors import ConfigurationError
from brownout.ledger.memory import MemoryStore

if TYPE_CHECKING:
    from brownout._core.ledger import Store


def opened(url: str) -> Store:
    """The store that `url` names, not yet connected. Raises ConfigurationError."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore()
    if scheme == "sqlite":
        from brownout.ledger.file import path_of
        from brownout.ledger.sqlite import SqliteStore

        return SqliteStore(path_of(url))
    if scheme in {"postgresql", "postgres"}:
        from brownout.ledger.postgres import PostgresStore

        return PostgresStore(url)
    if scheme in {"redis", "rediss", "unix"}:
        from brownout.ledger.redis import RedisStore

        return RedisStore(url)
    raise ConfigurationError(
        f"a ledger can't be opened at {scheme}:...; give sqlite:///path, postgresql://...,"
        " redis://... or memory:"
    )
