"""The keys of a ledger: UUIDs of version 7, which carry the time at which they were made.

A key sorts by its time, so that old ones are collected as one range.
"""

from __future__ import annotations

from brownout.errors import KeyMalformed


def canonical(key: object, scope: str = "") -> str:
    """The key as it is stored. Raises KeyMalformed for what is no UUIDv7."""
    if isinstance(key, str) and len(key) == 36:
        text = key.lower()
        digits = text.replace("-", "")
        dashes = text[8] == text[13] == text[18] == text[23] == "-"
        hexadecimal = len(digits) == 32 and not digits.strip("0123456789abcdef")
        if dashes and hexadecimal and text[14] == "7" and text[19] in "89ab":
            return text
    shown = repr(key if len(str(key)) <= 60 else str(key)[:57] + "...")
    raise KeyMalformed(
        f"key {shown} is no UUID of version 7, 36 characters; make one with Key.new() or Key.of(...)",
        key=str(key)[:100],
        scope=scope,
    )


def born(key: str) -> int:
    """When a canonical key was made: milliseconds since 1970, the first 48 bits of a UUIDv7 (RFC 9562)."""
    return int(key[:8] + key[9:13], 16)


def key_before(instant: int) -> str:
    """A text above every key that was made before `instant`, below all others."""
    digits = f"{max(0, min(instant, (1 << 48) - 1)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def minted(at: int, bits: bytes) -> str:
    """A UUIDv7 of the time `at` in milliseconds; its other 74 bits are out of `bits`, ten bytes or more."""
    a, b = int.from_bytes(bits[:2], "big") & 0x0FFF, int.from_bytes(bits[2:10], "big")
    number = (at & ((1 << 48) - 1)) << 80 | 0x7 << 76 | a << 64 | 0b10 << 62 | b & ((1 << 62) - 1)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def child_key(scope: str, key: str, step: str) -> str:
    """A key for one step of the work that `key` names: HMAC-SHA-256 over the step, with the same time."""
    import hmac  # not for every process that names work by a key

    bits = hmac.digest(f"{scope}\0{key}".encode(), step.encode(), "sha256")
    return minted(born(key), bits)
