"""Which of a server's routes are kept once, and of which class their handlers are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.ledger import HandlerClass
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OTHER", "UNDECLARED", "Route", "Routes", "path_of"]

SAFE = {"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"}  # by RFC 9110 they ask, and do nothing
MOST = 1_000
LONGEST = 200
OTHER = "*"
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_PART = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_]+))?\}")


class Route(NamedTuple):
    """A route: its template ("POST /orders/{id}/pay"), and its handler's class."""

    template: str
    handler: HandlerClass


# All that is not declared: one, so that nothing is overlooked where a question names no route.
UNDECLARED = Route(OTHER, HandlerClass.OPAQUE)


class Routes:
    """The routes that were declared, `{"POST /orders/{id}": "atomic"}`, each with its handler's class.

    `{name}` stands for one part of the path, `{name:path}` for all the rest. A path that is written out
    wins against one with names; of those the first that fits.

    Raises ConfigurationError, with every fault at once.
    """

    def __init__(self, declared: Mapping[str, str | HandlerClass]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._open: list[tuple[str, re.Pattern[str], Route]] = []
        faults = [fault for item in declared.items() if (fault := self._declare(*item))]
        if len(declared) > MOST:
            faults.append(f"{len(declared)} routes: at most {MOST}")
        if faults:
            raise ConfigurationError(
                "Once can't work with these routes:\n" + "\n".join(f"  - {f}" for f in faults)
            )

    def _declare(self, template: str, handler: str | HandlerClass) -> str:
        """Take in a route; what is wrong with it, or ""."""
        method, _, path = str(template).partition(" ")
        method = method.upper()
        if not _METHOD.fullmatch(method) or not path.startswith("/") or " " in path:
            return f'{template!r}: write "POST /path", one blank between'
        try:
            class_ = HandlerClass(handler)
        except ValueError:
            known = ", ".join(one.value for one in HandlerClass)
            return f"{template!r}: {handler!r} is no class of handlers; there are {known}"
        if len(template) > LONGEST:
            return f"{template[:50]!r}...: a route has at most {LONGEST} characters"
        rest = _PART.sub("", path)
        if "{" in rest or "}" in rest or "?" in path or "#" in path:
            return (
                f"{template!r}: names are written {{name}} or {{name:path}}, and there is no query"
            )
        route = Route(f"{method} {path}", class_)
        if "{" not in path:
            self._exact[method, path] = route
        else:
            self._open.append((method, _pattern(path), route))
        return ""

    def all(self) -> list[Route]:
        """Every declared route, as declared: those written out first."""
        return [*self._exact.values(), *(route for _, _, route in self._open)]

    def of(self, method: str, path: str) -> Route | None:
        """The declared route of a call; None if there is none."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for wanted, pattern, route in self._open:
            if wanted == method and pattern.fullmatch(path):
                return route
        return None

    def keyed(self, method: str, path: str) -> Route | None:
        """The route of a call that brings a key: an undeclared one is opaque, unless its method is safe."""
        found = self.of(method, path)
        return UNDECLARED if found is None and method not in SAFE else found

    def named(self, text: str) -> Route:
        """The route that a question names, by its template or by a path that it fits."""
        method, _, path = text.partition(" ")
        method = method.upper()
        for route in self.all():
            if route.template == f"{method} {path}":
                return route
        return self.of(method, path) or UNDECLARED


def _pattern(path: str) -> re.Pattern[str]:
    made, at = "", 0
    for part in _PART.finditer(path):
        made += re.escape(path[at : part.start()]) + (".+" if part[2] == "path" else "[^/]+")
        at = part.end()
    return re.compile(made + re.escape(path[at:]), re.DOTALL)


def path_of(scope: Mapping[str, object]) -> str:
    """The path as the app routes by it: without what it is mounted under."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path
