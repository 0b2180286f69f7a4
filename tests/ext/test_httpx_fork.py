"""Forked while an answer is being read: its attempt, its permit and its connection are the parent's."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Guard
from tests.ext.client import classes, client_of
from tests.ext.server import Server, begun, held, rest
from tests.ext.streams import StreamServer
from tests.ext.test_httpx_bodies import opened, read, used
from tests.ext.test_httpx_streams import HTTP2
from tests.ext.test_httpx_streams import begun as begun_stream
from tests.proof.test_fork import in_child
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes as POSIX has them"),
    # From 3.12 on Python warns of a fork beside threads: that is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def streams() -> Iterator[StreamServer]:
    one = StreamServer()
    try:
        yield one
    finally:
        one.close()


def dropped(guard: Guard, answers: list[Any], *, closes: bool) -> None:
    """In the child: what becomes of an answer of the parent's is nothing to its guard."""
    assert used(guard) == (0, 0)
    answer = answers.pop()
    if closes:
        answer.close()
    del answer
    gc.collect()
    guard._target.fold(time.monotonic())
    assert used(guard) == (0, 0)
    assert classes(guard) == {}
    assert guard.call(lambda: "ok") == "ok"
    assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 1}


def test_the_attempt_is_settled_by_the_parent(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(length=8, then=held(then=rest(b"more"))))
    with client_of(kind, guard) as client:
        answers = [opened(client, server.url)]
        said = in_child(lambda: dropped(guard, answers, closes=not client.is_async))
        assert said == "ok"
        assert used(guard) == (1, 1)
        assert classes(guard) == {}
        server.go.set()
        assert read(client, answers[0]) == b"somemore"
        assert used(guard) == (0, 0)
        assert client.get(server.url).text == "ok"
        assert server.accepted == 1
    assert classes(guard) == {"SUCCESS": 2}


def test_a_stream_among_others_is_the_parents_too(kind: Any, streams: StreamServer) -> None:
    guard = Guard("t", limit=1)
    with client_of(kind, guard, **HTTP2) as client:
        answers = [begun_stream(client, streams, "/a")]
        said = in_child(lambda: dropped(guard, answers, closes=not client.is_async))
        assert said == "ok"
        assert used(guard) == (1, 1)
        streams.finish("/a")
        assert read(client, answers[0]) == b"somemore"
        assert used(guard) == (0, 0)
        assert client.get(streams.url + "/ok").text == "ok"
    assert streams.reset == []
    assert streams.accepted == 1
    assert classes(guard) == {"SUCCESS": 2}
    until(lambda: streams.left)
    assert streams.left == ["closed"]
