"""Which calls are bad: a label that tells them from the good ones, if one does.

Some calls are instant and others hang: that is two humps, and often one backend, one operation or one
observer has all the bad ones. A G-test of bad calls against the values of each label says whether that
is more than chance.

Source: R. R. Sokal, F. J. Rohlf, "Biometry" (1981), log-likelihood ratio tests.
"""

from __future__ import annotations

from math import erfc, log, sqrt
from typing import TYPE_CHECKING

from brownout._core.finding import Split

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANCE = 1e-4  # so improbable must it be
FEWEST = 5  # bad calls
OFTEN = 4.0  # so many times as large must the bad share be there as elsewhere
NAMED = 3  # values that a sentence can name


def split(label: str, counts: Mapping[str, tuple[int, int]]) -> Split | None:
    """The values of a label that explain which calls are bad; None if none do.

    `counts` has (bad, calls) for each value.
    """
    bad, calls = (
        (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
    )
    if len(counts) < 2 or bad < FEWEST or bad == calls or improbable(counts) > CHANCE:
        return None
    worst = sorted(counts, key=lambda value: (-counts[value][0] / max(1, counts[value][1]), value))
    there = [0, 0]
    for number, value in enumerate(worst[:NAMED], 1):
        there[0] += counts[value][0]
        there[1] += counts[value][1]
        rest = calls - there[1]
        if not rest:
            return None
        elsewhere = (bad - there[0]) / rest
        if there[0] >= 0.8 * bad and there[0] / there[1] >= OFTEN * elsewhere:
            values = tuple(sorted(worst[:number]))
            return Split(label, values, there[0], there[1], bad - there[0], rest)
    return None


def improbable(counts: Mapping[str, tuple[int, int]]) -> float:
    """The probability that chance alone spreads the bad calls so unevenly (G-test)."""
    bad = sum(one for one, _ in counts.values())
    calls = sum(all_ for _, all_ in counts.values())
    g = 0.0
    for one, all_ in counts.values():
        for seen, share in ((one, bad / calls), (all_ - one, 1 - bad / calls)):
            if seen:
                g += 2 * seen * log(seen / (all_ * share))
    free = len(counts) - 1
    # Wilson and Hilferty: the cube root of chi-squared is nearly normal.
    z = ((max(g, 0.0) / free) ** (1 / 3) - (1 - 2 / (9 * free))) / sqrt(2 / (9 * free))
    return erfc(z / sqrt(2)) / 2
