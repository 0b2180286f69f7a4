"""Who suffers: the part of the fleet that a target's trouble has in common.

Each observer tells how many of its recent calls were bad. Healthy observers have few bad calls,
Beta(0.5, 50) of them; ill ones have any share, Beta(1.5, 1), or all who suffer have a small one, Beta(2, 20).
So the likelihood of what one observer counted is a ratio of Beta functions for each of these, and that of a
hypothesis (all suffer; one zone, or several, do; one observer alone; a part without a name) is their product.
One is named when its posterior passes 0.99, and nothing is named before. It costs a sum over observers and
hypotheses, without iteration.

Rules: no observer weighs more than 25 calls, so that none shouts. Shares are compared, never counts: who
calls more has more failures, and suffers no more. One whose own judge has named the trouble has that judge's
weight at least. An observer in trouble of its own is not heard. Before more than half of a group has been
heard, nothing is said of all of it. Where two hypotheses say the same of everybody (a zone with one observer
in it), the narrower one is named.
"""

from __future__ import annotations

from itertools import combinations
from math import exp, inf, lgamma, log
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HEALTHY, TARGET, ZONE, OBSERVER, PART = "healthy", "target", "zone", "observer", "part"
SURE = 0.99
CAP_CALLS = 25.0
JUDGED_NATS = (
    12.0  # what a judge wants before it names anything, at a call a second and one alarm a day
)
_HEALTHY_BETA = (0.5, 50.0)
_ILL_BETAS = ((1.5, 1.0), (2.0, 20.0))  # badly, and mildly: all who suffer do so in the same way
_ILL_PRIORS = (0.8, 0.2)
_PRIORS = {HEALTHY: 0.99, TARGET: 0.004, ZONE: 0.003, OBSERVER: 0.002, PART: 0.001}
_PART_SHARE = 0.4  # of a part without a name: so likely is each observer to be in it
_ONE_ZONE = 0.99  # of the prior of zones: that it is a single one
_ROUNDING = 1e-9
_MOST_ZONES = 5  # of which every set is tried; of more, only each alone


class Tally(NamedTuple):
    """What one observer counted: `bad` of `calls`.

    `ill`: its own judge has named something; `own`: it is in trouble of its own, and not heard.
    """

    observer: str
    zone: str
    bad: float
    calls: float
    ill: bool = False
    own: bool = False


class Scope(NamedTuple):
    """Who suffers: "healthy" (nobody), "target" (all), "zone", "observer", "part", or "" (not decided).

    `zones` are named for "zone", `observers` (ids) are those that are in it. `posterior` is that of the best
    hypothesis, which is `likeliest` also where it is not decided.
    """

    kind: str
    likeliest: str
    zones: tuple[str, ...]
    observers: tuple[str, ...]
    posterior: float


NOBODY = Scope(HEALTHY, HEALTHY, (), (), 1.0)


def log_beta(a: float, b: float) -> float:
    """The logarithm of the Beta function."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _marginal(bad: float, good: float, prior: tuple[float, float]) -> float:
    """The log likelihood of a group of calls, where the share of bad ones is Beta-distributed."""
    return log_beta(bad + prior[0], good + prior[1]) - log_beta(*prior)


def weigh(tally: Tally) -> tuple[float, ...]:
    """The log likelihoods of what an observer counted: if it is healthy, suffers badly, or mildly."""
    if tally.own or tally.calls <= 0:
        return 0.0, 0.0, 0.0
    part = min(1.0, CAP_CALLS / tally.calls)
    bad = min(tally.bad, tally.calls) * part
    good = tally.calls * part - bad
    well = _marginal(bad, good, _HEALTHY_BETA)
    least = well + JUDGED_NATS if tally.ill else -inf
    return well, *(max(_marginal(bad, good, beta), least) for beta in _ILL_BETAS)


def suffers(tally: Tally) -> bool:
    """Whether an observer, taken alone, rather suffers than not."""
    well, *ill = weigh(tally)
    return max(ill) > well


def _enough(best: _Guess, tallies: Sequence[Tally]) -> bool:
    """Whether more than half of those that a group has in it were heard."""
    if best.kind not in {TARGET, ZONE}:
        return True
    of = [one for one in tallies if best.kind == TARGET or one.zone in best.zones]
    return 2 * len(best.who) > sum(1 for one in of if not one.own)


class _Guess(NamedTuple):
    kind: str
    score: float
    zones: tuple[str, ...]
    who: tuple[int, ...]


def decide(tallies: Sequence[Tally]) -> Scope:
    """Who suffers. Once a judge has named something, "nobody" is no answer any more."""
    heard = [one for one in tallies if not one.own and one.calls > 0]
    if not heard:
        return Scope("", "", (), (), 0.0)
    guesses = _guesses(heard)
    if any(one.ill for one in heard):
        guesses = [guess for guess in guesses if guess.kind != HEALTHY]
    best = max(guesses, key=lambda guess: guess.score)
    whole = sum(exp(guess.score - best.score) for guess in guesses)
    posterior = 1.0 / whole
    sure = posterior > SURE and len(heard) > 1 and _enough(best, tallies)
    kind = best.kind if sure or best.kind == HEALTHY else ""
    who = tuple(heard[index].observer for index in best.who) if kind else ()
    return Scope(kind, best.kind, best.zones if kind else (), who, posterior)


def _guesses(heard: list[Tally]) -> list[_Guess]:
    """Every hypothesis once, its score summed over the two ways to suffer."""
    weights = [weigh(one) for one in heard]
    well = sum(weight[0] for weight in weights)
    named = _named(heard)
    ways: list[list[_Guess]] = []
    for way, share in enumerate(_ILL_PRIORS, start=1):
        gain = [weight[way] - weight[0] for weight in weights]
        scores = [guess.score + sum(gain[index] for index in guess.who) for guess in named]
        some = log(_PRIORS[PART]) + _unnamed(gain, [guess.who for guess in named])
        found = [guess._replace(score=score) for guess, score in zip(named, scores, strict=True)]
        found.append(_Guess(PART, some, (), ()))
        ways.append([one._replace(score=one.score + well + log(share)) for one in found])
    ill = tuple(index for index, one in enumerate(heard) if suffers(one))
    guesses = [
        one._replace(score=_sum(one.score, other.score), who=ill if one.kind == PART else one.who)
        for one, other in zip(*ways, strict=True)
    ]
    return [_Guess(HEALTHY, log(_PRIORS[HEALTHY]) + well, (), ()), *guesses]


def _sum(one: float, other: float) -> float:
    """The logarithm of the sum of what two are logarithms of."""
    most = max(one, other)
    return most if most == -inf else most + log(exp(one - most) + exp(other - most))


def _named(heard: list[Tally]) -> list[_Guess]:
    """The hypotheses that have a name, with their priors as scores."""
    every = tuple(range(len(heard)))
    guesses = [_Guess(TARGET, log(_PRIORS[TARGET]), (), every)]
    if len(heard) > 1:  # else it is all there are
        prior = log(_PRIORS[OBSERVER] / len(heard))
        guesses += [_Guess(OBSERVER, prior, (), (index,)) for index in every]
    for zones, share in _zones(heard):
        who = tuple(index for index in every if heard[index].zone in zones)
        if 1 < len(who) < len(every):
            guesses.append(_Guess(ZONE, log(_PRIORS[ZONE] * share), zones, who))
    return guesses


def _unnamed(gain: list[float], named: list[tuple[int, ...]]) -> float:
    """The log likelihood ratio of a part that is none of those that have a name, nor nobody."""
    inside, outside = log(_PART_SHARE), log(1 - _PART_SHARE)
    every = sum(outside + log(1 + exp(min(inside - outside + each, 600.0))) for each in gain)
    none = outside * len(gain)
    sums = [sum(inside - outside + gain[index] for index in who) for who in [(), *named]]
    left = 1.0 - sum(exp(min(none + each - every, 0.0)) for each in sums)
    return every + log(left) if left > _ROUNDING else -inf


def _zones(heard: list[Tally]) -> list[tuple[tuple[str, ...], float]]:
    """The sets of zones that may suffer, each with its share of the prior. No name is no zone."""
    names = sorted({one.zone for one in heard if one.zone})
    single = [(name,) for name in names]
    several = [
        some
        for size in range(2, len(names))
        if len(names) <= _MOST_ZONES
        for some in combinations(names, size)
    ]
    most = _ONE_ZONE if several else 1.0
    return [(one, most / len(single)) for one in single] + [
        (some, (1 - most) / len(several)) for some in several
    ]
