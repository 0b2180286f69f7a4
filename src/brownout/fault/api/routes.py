"""What is asked, by method and path, and what does it: one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from brownout.fault.api.answer import Answer, Problem
from brownout.fault.api.body import parsed_list, parsed_object

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brownout.fault.api.proxies import Proxies

    Verbs = dict[str, Callable[["Ask"], Awaitable[Answer]]]

__all__ = ["ROUTES", "VERSION", "answered"]

VERSION = "2.12.0"  # of toxiproxy, whose API this is: clients choose PATCH or POST by it
_ANY = Answer(204, None, (("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST"),))


class Ask(NamedTuple):
    """What is asked of which proxies; `names` are those in the path, of a proxy and a toxic."""

    proxies: Proxies
    names: list[str]
    body: bytes


async def _list(ask: Ask) -> Answer:
    return Answer(200, ask.proxies.told())


async def _create(ask: Ask) -> Answer:
    return Answer(201, (await ask.proxies.create(parsed_object(ask.body))).told())


async def _show(ask: Ask) -> Answer:
    return Answer(200, ask.proxies.get(ask.names[0]).told())


async def _update(ask: Ask) -> Answer:
    ask.proxies.get(ask.names[0])  # what isn't there is said before what is wrong with the body
    return Answer(200, (await ask.proxies.update(ask.names[0], parsed_object(ask.body))).told())


async def _delete(ask: Ask) -> Answer:
    await ask.proxies.delete(ask.names[0])
    return Answer(204)


async def _toxics(ask: Ask) -> Answer:
    return Answer(200, [toxic.told() for toxic in ask.proxies.get(ask.names[0]).toxics])


async def _add_toxic(ask: Ask) -> Answer:
    ask.proxies.get(ask.names[0])
    return Answer(200, (await ask.proxies.add_toxic(ask.names[0], parsed_object(ask.body))).told())


async def _show_toxic(ask: Ask) -> Answer:
    return Answer(200, ask.proxies.get(ask.names[0]).toxic(ask.names[1]).told())


async def _update_toxic(ask: Ask) -> Answer:
    proxy, name = ask.names
    ask.proxies.get(proxy).toxic(name)
    return Answer(
        200, (await ask.proxies.update_toxic(proxy, name, parsed_object(ask.body))).told()
    )


async def _remove_toxic(ask: Ask) -> Answer:
    await ask.proxies.remove_toxic(*ask.names)
    return Answer(204)


async def _populate(ask: Ask) -> Answer:
    try:
        done, problem = await ask.proxies.populate(parsed_list(ask.body))
    except Problem as refused:
        done, problem = [], refused
    told = [proxied.told() for proxied in done]
    return problem.answer(proxies=told) if problem else Answer(201, {"proxies": told})


async def _reset(ask: Ask) -> Answer:
    await ask.proxies.reset()
    return Answer(204)


async def _version(_: Ask) -> Answer:
    return Answer(200, {"version": VERSION})


# POST changes as PATCH does: toxiproxy's way before 2.6, and still what most clients send.
ROUTES: dict[str, Verbs] = {
    "/proxies": {"GET": _list, "POST": _create},
    "/proxies/*": {"GET": _show, "POST": _update, "PATCH": _update, "DELETE": _delete},
    "/proxies/*/toxics": {"GET": _toxics, "POST": _add_toxic},
    "/proxies/*/toxics/*": {
        "GET": _show_toxic,
        "POST": _update_toxic,
        "PATCH": _update_toxic,
        "DELETE": _remove_toxic,
    },
    "/populate": {"POST": _populate},
    "/reset": {"POST": _reset},
    "/version": {"GET": _version},
}


async def answered(proxies: Proxies, method: str, path: str, body: bytes) -> Answer:
    """What the API answers; every problem as its error body."""
    if path == "*":
        return _ANY
    verbs, names = _route(path)
    if not verbs:
        return Problem(404, "404 page not found").answer()
    does = verbs.get("GET" if method == "HEAD" else method)
    if does is None:
        known: list[str] = sorted([*verbs, "OPTIONS", *(["HEAD"] if "GET" in verbs else [])])
        allow = ("Allow", ", ".join(known))
        if method == "OPTIONS":
            return Answer(204, None, (allow,))
        message = f"{method} is not for {path[:200]}; {allow[1]} are"
        return Problem(405, message, allow).answer()
    try:
        return await does(Ask(proxies, names, body))
    except Problem as problem:
        return problem.answer()


def _route(path: str) -> tuple[Verbs, list[str]]:
    """By the whole path; a name in it may hold a slash, written %2F. No verbs: there is no such path."""
    parts = path.split("/")
    for pattern, verbs in ROUTES.items():
        wanted = pattern.split("/")
        if len(wanted) == len(parts) and all(
            part == want or (want == "*" and part) for part, want in zip(parts, wanted, strict=True)
        ):
            names = [unquote(part) for part, want in zip(parts, wanted, strict=True) if want == "*"]
            return verbs, names
    return {}, []
