"""Whether what was told of one key can have happened in one order: its history is linearizable.

A key is an object of its own that only goes forward: absent, running, in doubt, and then done with one
value, or void. Two answers of which one was there before the other was asked for must be in that order.
For such an object that is all there is to check, so that it costs a sort, and no search; a question
without an answer may have had any, or none.
"""

from __future__ import annotations

from typing import NamedTuple

RANKS = {"absent": 0, "running": 1, "doubt": 2, "ok": 3, "void": 3}


class Told(NamedTuple):
    """An answer: when it was asked for, when it was there, and what it said."""

    asked: float
    there: float
    says: str
    value: str = ""


def violation(history: list[Told], *, back: bool = False) -> str:
    """What two answers contradict each other; "" if none do.

    The fact may be told before its value, which is "" then.

    `back`: the key may have been freed again, by a handler that had no effect: then only facts count.
    """
    facts = {(told.says, told.value) for told in history if RANKS[told.says] == 3}
    says, values = {fact[0] for fact in facts}, {fact[1] for fact in facts if fact[1]}
    if len(says) > 1 or len(values) > 1:
        return f"two facts: {sorted(facts)}"
    there = sorted(history, key=lambda told: told.there)
    highest: Told | None = None
    next_there = 0
    for told in sorted(history, key=lambda told: told.asked):
        while there[next_there].there < told.asked:
            seen = there[next_there]
            next_there += 1
            if back and RANKS[seen.says] < 3:
                continue
            if highest is None or RANKS[seen.says] > RANKS[highest.says]:
                highest = seen
        if highest is not None and RANKS[told.says] < RANKS[highest.says]:
            return f"{highest.says} was told, and then {told.says}"
    return ""
