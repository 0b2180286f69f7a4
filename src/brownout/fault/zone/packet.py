"""An IPv4 packet as the kernel wrote it to a TUN device: whose it is, and the answer that refuses it.

RFC 791 (IPv4), RFC 9293 3.5.2 (which RST answers what), RFC 792 (port unreachable).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["TCP", "UDP", "Packet", "read", "refusal"]

ICMP, TCP, UDP = 1, 6, 17
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


class Packet(NamedTuple):
    """What is decided by. Ports are 0 where there are none."""

    protocol: int
    source: int
    destination: int
    flags: int
    size: int

    @property
    def opens(self) -> bool:
        """Whether it asks for a new TCP connection."""
        return self.flags & (_SYN | _ACK) == _SYN


def read(data: bytes) -> Packet:
    """Raises ValueError for what is no whole IPv4 packet."""
    try:
        return _read(data)
    except (struct.error, IndexError) as error:
        raise ValueError("no whole IPv4 packet") from error


def _read(data: bytes) -> Packet:
    if data[0] >> 4 != 4:
        raise ValueError("no IPv4 packet")
    protocol = data[9]
    first = not (data[6] & 0x1F or data[7])  # later fragments have no ports
    if protocol not in (TCP, UDP) or not first:
        return Packet(protocol, 0, 0, 0, len(data))
    at = (data[0] & 15) * 4
    source, destination = struct.unpack_from("!HH", data, at)
    return Packet(protocol, source, destination, data[at + 13] if protocol == TCP else 0, len(data))


def refusal(data: bytes) -> bytes | None:
    """The answer by which this packet's sender is told that nobody is there; None where none is due."""
    if data[9] == TCP:
        return _reset(data)
    if data[9] == UDP and not (data[6] & 0x1F or data[7]):
        at = (data[0] & 15) * 4
        return _answer(data, ICMP, _summed(struct.pack("!BBHI", 3, 3, 0, 0) + data[: at + 8], 2))
    return None


def _reset(data: bytes) -> bytes | None:
    at = (data[0] & 15) * 4
    source, destination, sequence, acknowledged = struct.unpack_from("!HHII", data, at)
    flags = data[at + 13]
    if flags & _RST:
        return None
    size = len(data) - at - (data[at + 12] >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
    if flags & _ACK:
        numbers, flags = (acknowledged, 0), _RST
    else:
        numbers, flags = (0, (sequence + size) & 0xFFFFFFFF), _RST | _ACK
    segment = struct.pack("!HHIIBBHHH", destination, source, *numbers, 5 << 4, flags, 0, 0, 0)
    pseudo = data[16:20] + data[12:16] + struct.pack("!BBH", 0, TCP, len(segment))
    return _answer(data, TCP, _summed(pseudo + segment, len(pseudo) + 16)[len(pseudo) :])


def _answer(data: bytes, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0)
    return _summed(head + data[16:20] + data[12:16], 10) + body


def _summed(data: bytes, at: int) -> bytes:
    """With the Internet checksum (RFC 1071) of it all put there."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return data[:at] + struct.pack("!H", total) + data[at + 2 :]
