"""Toxiproxy's toxics, each a fault of the wire under another name: one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from brownout._core.fault import Amount
from brownout.fault.api import body
from brownout.fault.api.answer import Problem
from brownout.fault.kind import Bandwidth, Cut, Latency, Slice, SlowClose, Timeout
from brownout.fault.made import LONGEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from brownout._core.fault import Fault

__all__ = ["TYPES", "Toxic"]

Stream = Literal["upstream", "downstream"]
Attributes = dict[str, int]
Whom = dict[str, Any]

END = "for_ms"  # an attribute of ours, of every type: in force for so long. Clients pass it on as any other
PIECE_BYTES = 32 * 1024  # a slicer without a size leaves pieces as toxiproxy reads them
_AT: Mapping[str, Literal["request", "reply"]] = {"upstream": "request", "downstream": "reply"}


def _latency(a: Attributes, whom: Whom) -> Fault:
    return Latency(seconds=Amount(a["latency"] / 1e3, a["jitter"] / 1e3), **whom)


def _bandwidth(a: Attributes, whom: Whom) -> Fault:
    return Bandwidth(bytes_per_second=a["rate"] * 1e3, **whom)


def _slow_close(a: Attributes, whom: Whom) -> Fault:
    return SlowClose(seconds=a["delay"] / 1e3, **whom)


def _timeout(a: Attributes, whom: Whom) -> Fault:
    return Timeout(seconds=a["timeout"] / 1e3, **whom)


def _slicer(a: Attributes, whom: Whom) -> Fault:
    size = Amount(a["average_size"] or PIECE_BYTES, a["size_variation"])
    return Slice(bytes=size, seconds=a["delay"] / 1e6, **whom)  # the one in microseconds


def _limit_data(a: Attributes, whom: Whom) -> Fault:
    return Cut(how="close", at=_AT[whom["stream"]], after_bytes=a["bytes"], **whom)


def _reset_peer(a: Attributes, whom: Whom) -> Fault:
    return Cut(how="reset", at=_AT[whom["stream"]], after_seconds=a["timeout"] / 1e3, **whom)


def _noop(a: Attributes, whom: Whom) -> None:
    """It does nothing, and toxiproxy has it."""


# A toxic's type -> its attributes, all of them whole numbers and 0 by default; and the fault that they make.
TYPES: Mapping[str, tuple[tuple[str, ...], Callable[[Attributes, Whom], Fault | None]]] = {
    "latency": (("latency", "jitter"), _latency),
    "bandwidth": (("rate",), _bandwidth),
    "slow_close": (("delay",), _slow_close),
    "timeout": (("timeout",), _timeout),
    "reset_peer": (("timeout",), _reset_peer),
    "slicer": (("average_size", "size_variation", "delay"), _slicer),
    "limit_data": (("bytes",), _limit_data),
    "noop": ((), _noop),
}


@dataclass(frozen=True, slots=True)
class Toxic:
    """What a client asked for. `toxicity` is the share of connections that it hits.

    `seconds` is how long it is to be in force; None, where nobody said. Then it is no attribute either: a
    client that doesn't know of it sees nothing new.
    """

    name: str
    type: str
    stream: Stream
    toxicity: float
    attributes: Attributes

    @classmethod
    def of(cls, given: body.Object) -> Toxic:
        """From the body that creates one. Raises Problem."""
        type_ = body.text(given, "type", "")
        stream = body.text(given, "stream", "downstream")
        low = stream.lower()
        if low not in ("upstream", "downstream"):
            raise Problem(400, "stream was invalid, can be either upstream or downstream")
        if type_ not in TYPES:
            raise Problem(400, "invalid toxic type")
        return cls(
            name=body.text(given, "name", "") or f"{type_}_{low}",
            type=type_,
            stream="upstream" if low == "upstream" else "downstream",
            toxicity=body.number(given, "toxicity", 1.0),
            attributes=_attributes(given, dict.fromkeys(TYPES[type_][0], 0)),
        )

    @property
    def seconds(self) -> float | None:
        """How long it is to be in force, from when it was made or updated; None if nobody said."""
        return self.attributes[END] / 1e3 if END in self.attributes else None

    @staticmethod
    def renews(given: body.Object) -> bool:
        """Whether a body says anew how long it is to be in force."""
        return END in body.within(given, "attributes")

    def updated(self, given: body.Object) -> Toxic:
        """With what a body changes: attributes and toxicity alone. Raises Problem."""
        toxicity = body.number(given, "toxicity", self.toxicity)
        attributes = _attributes(given, self.attributes)
        return Toxic(self.name, self.type, self.stream, toxicity, attributes)

    def fault(self) -> Fault | None:
        """As a fault; None for one that does nothing."""
        _, make = TYPES[self.type]
        return make(self.attributes, {"share": self.toxicity, "stream": self.stream})

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "attributes": self.attributes,
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": self.toxicity,
        }


def _attributes(given: body.Object, before: Attributes) -> Attributes:
    new = body.within(given, "attributes")
    told = {name: body.integer(new, name, value) for name, value in before.items()}
    if END in new:
        told[END] = body.integer(new, END, 0)
        if not 0 < told[END] <= LONGEST_SECONDS * 1e3:
            raise Problem(400, f"bad request body: {END} is from 1 to {LONGEST_SECONDS * 1e3:.0f}")
    return told
