"""An ASGI app, served by uvicorn for real, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def served(app: Any, *, lifespan: str = "off") -> Iterator[str]:
    """Gives "http://host:port"."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, ws="none")  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        serve = lambda: asyncio.run(server.serve(sockets=[sock]))  # noqa: E731
        thread = threading.Thread(target=serve, daemon=True)  # a hang is one test's failure
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
