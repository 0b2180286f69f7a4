"""The answers that refuse a packet, held against the RFCs, byte by byte."""

from __future__ import annotations

import socket
import struct

import pytest

from brownout.fault.zone import packet

A, B = "127.231.0.1", "127.231.0.2"
SYN, ACK, RST, FIN, PUSH = 2, 16, 4, 1, 8


def ip(protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0)
    return head + socket.inet_aton(A) + socket.inet_aton(B) + body


def tcp(flags: int, sequence: int = 1000, acknowledged: int = 0, data: bytes = b"") -> bytes:
    segment = struct.pack("!HHIIBBHHH", 4000, 80, sequence, acknowledged, 5 << 4, flags, 9, 0, 0)
    return ip(packet.TCP, segment + data)


def checksum(data: bytes) -> int:
    """Over data with its checksum in place: 0xFFFF is right (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(
    ("data", "sequence", "acknowledged", "flags"),
    [
        (tcp(SYN), 0, 1001, RST | ACK),
        (tcp(SYN, 0xFFFFFFFF), 0, 0, RST | ACK),  # numbers wrap
        (tcp(ACK | PUSH, 1000, 77, b"hello"), 77, 0, RST),
        (tcp(FIN, 1000, 0, b"ab"), 0, 1003, RST | ACK),
    ],
)
def test_an_rst_that_its_receiver_must_accept(
    data: bytes, sequence: int, acknowledged: int, flags: int
) -> None:
    answer = packet.refusal(data)
    assert answer
    assert len(answer) == 40
    assert struct.unpack_from("!H", answer, 2)[0] == 40
    assert checksum(answer[:20]) == 0xFFFF
    assert answer[12:20] == socket.inet_aton(B) + socket.inet_aton(A)
    pseudo = answer[12:20] + struct.pack("!BBH", 0, packet.TCP, 20)
    assert checksum(pseudo + answer[20:]) == 0xFFFF
    assert struct.unpack_from("!HHII", answer, 20) == (80, 4000, sequence, acknowledged)
    assert answer[33] == flags


def test_an_rst_is_not_answered() -> None:
    assert packet.refusal(tcp(RST)) is None
    assert packet.refusal(tcp(RST | ACK)) is None


def test_port_unreachable_quotes_the_datagram() -> None:
    datagram = ip(packet.UDP, struct.pack("!HHHH", 4000, 53, 11, 0) + b"abc")
    answer = packet.refusal(datagram)
    assert answer
    assert answer[9] == 1
    assert answer[20:22] == b"\x03\x03"
    assert checksum(answer[20:]) == 0xFFFF
    assert answer[28:] == datagram[:28]


def test_what_has_no_ports_gets_no_answer() -> None:
    assert packet.refusal(ip(1, bytes(8))) is None
    assert packet.refusal(ip(packet.UDP, bytes(8), fragment=5)) is None


def test_reading() -> None:
    opening = packet.read(tcp(SYN))
    assert opening == (packet.TCP, 4000, 80, SYN, 40)
    assert opening.opens
    assert not packet.read(tcp(SYN | ACK)).opens
    assert packet.read(ip(packet.UDP, bytes(8), fragment=5)).source == 0


@pytest.mark.parametrize("data", [b"", b"\x60" + bytes(60), tcp(SYN)[:22], tcp(SYN)[:30]])
def test_what_is_no_whole_packet(data: bytes) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        packet.read(data)
