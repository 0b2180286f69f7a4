"""Any sequence of calls leaves the proxies and toxics that a model of them says, and gets its codes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.api.speak import Api

NAMES = st.sampled_from(["a", "b", "c"])
UPSTREAMS = st.sampled_from(["127.0.0.1:9", "127.0.0.1:10"])
# Addresses that nobody else has, not even another run of these tests on the same machine.
OURS = f"127.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}.1"
FIXED = [f"{OURS}:29991", f"{OURS}:29992"]
LISTENS = st.sampled_from(["", *FIXED])
TYPES: dict[str, list[str]] = {
    "latency": ["latency", "jitter"],
    "bandwidth": ["rate"],
    "timeout": ["timeout"],
    "limit_data": ["bytes"],
    "noop": [],
}
TOXICS = st.sampled_from(
    [f"{type_}_{stream}" for type_ in TYPES for stream in ("upstream", "downstream")]
)
SHARES = st.sampled_from([None, 0, 0.5, 1])


class Calls(RuleBasedStateMachine):
    api: Api

    def __init__(self) -> None:
        super().__init__()
        self.proxies: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        self.api.forget()

    # ------------------------------------------------------------------------------------ the model

    def taken(self, listen: str, by: str = "") -> bool:
        return any(
            each["listen"] == listen and each["enabled"]
            for name, each in self.proxies.items()
            if name != by
        )

    def put(self, name: str, upstream: str, listen: str, *, enabled: bool) -> bool:
        if enabled and self.taken(listen):
            return False
        self.proxies[name] = {
            "name": name,
            "listen": listen or None,  # None: what the server says first
            "upstream": upstream,
            "enabled": enabled,
            "toxics": {},
        }
        return True

    def expected(self, name: str) -> dict[str, Any]:
        toxics = self.proxies[name]["toxics"].values()
        ordered = sorted(toxics, key=lambda toxic: toxic["stream"] == "downstream")
        return {**self.proxies[name], "toxics": ordered}

    def same(self, told: dict[str, Any]) -> None:
        name = told["name"]
        if self.proxies[name]["listen"] is None:
            assert told["listen"].startswith("127.0.0.1:")
            self.proxies[name]["listen"] = told["listen"]
        elif self.proxies[name]["listen"] == "127.0.0.1:0":  # it has got a real one by now
            self.proxies[name]["listen"] = told["listen"]
        assert told == self.expected(name)

    @invariant()
    def all_are_as_the_model_says(self) -> None:
        told = self.api.get("/proxies")
        assert told.keys() == self.proxies.keys()
        for each in told.values():
            self.same(each)

    # ------------------------------------------------------------------------------------- the calls

    @rule(name=NAMES, upstream=UPSTREAMS, listen=LISTENS, enabled=st.booleans())
    def create(self, name: str, upstream: str, listen: str, *, enabled: bool) -> None:
        told = self.api.ask(
            "POST",
            "/proxies",
            {"name": name, "upstream": upstream, "listen": listen, "enabled": enabled},
        )
        if name in self.proxies:
            assert told.code == 409
        elif self.put(name, upstream, listen, enabled=enabled):
            assert told.code == 201
            self.same(told.body)
        else:
            assert told.code == 500

    @rule(
        name=NAMES,
        upstream=st.none() | UPSTREAMS,
        listen=st.none() | st.sampled_from(FIXED),
        enabled=st.none() | st.booleans(),
        verb=st.sampled_from(["POST", "PATCH"]),
    )
    def update(
        self, name: str, upstream: str | None, listen: str | None, enabled: bool | None, verb: str
    ) -> None:
        body = {"upstream": upstream, "listen": listen, "enabled": enabled}
        told = self.api.ask(verb, f"/proxies/{name}", body)
        proxy = self.proxies.get(name)
        if proxy is None:
            assert told.code == 404
            return
        was_enabled = proxy["enabled"]
        moved = (listen or proxy["listen"], upstream or proxy["upstream"])
        if moved != (proxy["listen"], proxy["upstream"]):
            proxy.update(listen=moved[0], upstream=moved[1], enabled=False)
        wanted = was_enabled if enabled is None else enabled
        if wanted and not proxy["enabled"] and self.taken(proxy["listen"], by=name):
            assert told.code == 500
            return
        proxy["enabled"] = wanted
        assert told.code == 200
        self.same(told.body)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        code = 204 if self.proxies.pop(name, None) else 404
        assert self.api.ask("DELETE", f"/proxies/{name}").code == code

    @rule(
        wanted=st.lists(st.tuples(NAMES, UPSTREAMS, LISTENS, st.none() | st.booleans()), max_size=3)
    )
    def populate(self, wanted: list[tuple[str, str, str, bool | None]]) -> None:
        keys = ("name", "upstream", "listen", "enabled")
        told = self.api.ask(
            "POST", "/populate", [dict(zip(keys, each, strict=True)) for each in wanted]
        )
        proxies = told.body["proxies"]
        for name, upstream, listen, enabled in wanted:
            old = self.proxies.get(name)
            if old is not None:
                asked = (listen or "127.0.0.1:0", upstream)  # equal while none was ever had
                if (old["listen"], old["upstream"]) == asked:
                    assert proxies.pop(0)["name"] == name
                    continue
                old["enabled"] = False
            if not self.put(name, upstream, listen, enabled=enabled is not False):
                assert told.code == 500
                assert proxies == []
                return
            assert proxies, told
            got = proxies.pop(0)
            if not listen:
                self.proxies[name]["listen"] = got["listen"]
        assert (told.code, proxies) == (201, [])

    @rule()
    def reset(self) -> None:
        told = self.api.ask("POST", "/reset")
        failed = False
        for name, proxy in self.proxies.items():
            proxy["toxics"].clear()
            if not proxy["enabled"]:
                if self.taken(proxy["listen"], by=name):
                    failed = True
                else:
                    proxy["enabled"] = True
        assert told.code == (500 if failed else 204)

    @precondition(lambda self: self.proxies)
    @rule(name=NAMES, toxic=TOXICS, toxicity=SHARES, amount=st.integers(0, 1000))
    def add_toxic(self, name: str, toxic: str, toxicity: float | None, amount: int) -> None:
        type_, _, stream = toxic.rpartition("_")
        attributes = dict.fromkeys(TYPES[type_], amount)
        body = {"type": type_, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        told = self.api.ask("POST", f"/proxies/{name}/toxics", body)
        if name not in self.proxies:
            assert told.code == 404
        elif toxic in self.proxies[name]["toxics"]:
            assert told.code == 409
        else:
            wanted = {**body, "name": toxic, "toxicity": 1 if toxicity is None else toxicity}
            assert told[:2] == (200, wanted)
            self.proxies[name]["toxics"][toxic] = wanted

    @precondition(lambda self: self.proxies)
    @rule(name=NAMES, toxic=TOXICS, toxicity=SHARES, amount=st.integers(0, 1000))
    def update_toxic(self, name: str, toxic: str, toxicity: float | None, amount: int) -> None:
        names = TYPES[toxic.rpartition("_")[0]][:1]
        body = {"toxicity": toxicity, "attributes": dict.fromkeys(names, amount)}
        told = self.api.ask("PATCH", f"/proxies/{name}/toxics/{toxic}", body)
        old = self.proxies.get(name, {"toxics": {}})["toxics"].get(toxic)
        if old is None:
            assert told.code == 404
            return
        old["attributes"].update(body["attributes"])
        old["toxicity"] = old["toxicity"] if toxicity is None else toxicity
        assert told[:2] == (200, old)

    @precondition(lambda self: self.proxies)
    @rule(name=NAMES, toxic=TOXICS)
    def remove_toxic(self, name: str, toxic: str) -> None:
        old = self.proxies.get(name, {"toxics": {}})["toxics"].pop(toxic, None)
        told = self.api.ask("DELETE", f"/proxies/{name}/toxics/{toxic}")
        assert told.code == (204 if old else 404)


@pytest.fixture
def calls(api: Api) -> Iterator[type[Calls]]:
    Calls.api = api
    yield Calls
    del Calls.api


def test_any_sequence_of_calls(calls: type[Calls]) -> None:
    run_state_machine_as_test(
        calls,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
