"""What the API answers: a code and JSON, or a problem that becomes one."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["Answer", "Problem"]


class Answer(NamedTuple):
    """A code, and what is told as JSON (None: nothing), or as plain text where it is a string."""

    code: int
    told: Any = None
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> tuple[str, bytes]:
        """Its type and its bytes."""
        if self.told is None:
            return "", b""
        if isinstance(self.told, str):
            return "text/plain; charset=utf-8", self.told.encode()
        return "application/json", json.dumps(self.told, allow_nan=False).encode() + b"\n"


class Problem(Exception):
    """Why it can't be done, and the code that says so; told as `{"error": ..., "status": ...}`."""

    def __init__(self, code: int, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = headers

    def answer(self, **more: Any) -> Answer:
        """As an answer, with `more` beside the error."""
        return Answer(self.code, {"error": self.message, "status": self.code, **more}, self.headers)
