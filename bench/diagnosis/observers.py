"""Many observers: is it the target, a zone, one observer, or a part without a name?

`python -m bench.diagnosis observers`. The scenes are the report's: 12 observers in 3 zones, healthy calls bad
in 0.5 %. First from counts alone, as the report has it: from the first bad call on `scope.decide` is asked
ten times a second, and its first sure word counts, right or wrong. Beside it, on the same counts, the
prototype's rule: one way to suffer, an unnamed part that overlaps those that have a name, and a group is
named also of those who have said nothing yet. Then the whole way: each observer's own judge with what it
learned, told once a second and at each change, and the row that `brownout status` shows.
"""

from __future__ import annotations

import argparse
import random
import statistics
from math import exp, inf, log
from typing import TYPE_CHECKING, NamedTuple

from brownout import OutcomeClass
from brownout._core.operation import Operation
from brownout._core.scope import SURE, Scope, Tally, decide, weigh
from brownout._core.sketch import bucket
from brownout._core.view import Observer, Seen, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout import State, Verdict

    Rule = Callable[[Sequence[Tally]], str]

ZONES, EACH, STEP_SECONDS, HEALTHY_SHARE = ("zone-a", "zone-b", "zone-c"), 4, 0.1, 0.005
NAMES = tuple(f"{zone}/{number}" for zone in ZONES for number in range(EACH))
SPANS = {1: 30.0, 10: 10.0, 100: 5.0}  # calls a second of an observer, and how long it is watched


class Scene(NamedTuple):
    """What is wrong: its title, the right name ("": none), and the share of bad calls by observer."""

    title: str
    right: str
    bad: Callable[[random.Random], dict[str, float]]


def _half(chance: random.Random) -> dict[str, float]:
    return dict.fromkeys(chance.sample(NAMES, len(NAMES) // 2), 0.95)


SCENES = (
    Scene("healthy", "", lambda _: {}),
    Scene("one zone loses the target", "zone-b", lambda _: dict.fromkeys(NAMES[4:8], 0.98)),
    Scene("target half broken for all", "target", lambda _: dict.fromkeys(NAMES, 0.5)),
    Scene("half of the observers, no zone pattern", "part", _half),
    Scene("one sick observer", NAMES[2], lambda _: {NAMES[2]: 0.9}),
    Scene("10 % errors for all", "target", lambda _: dict.fromkeys(NAMES, 0.1)),
)


class Told(NamedTuple):
    """How many of the runs were named right and wrong, and when those that were right."""

    right: float
    wrong: float
    p50: float
    p95: float


def ours(tallies: Sequence[Tally]) -> str:
    """What the product says: the name, and who."""
    return _name(decide(tallies))


def _name(found: Scope) -> str:
    named = {"zone": "+".join(found.zones), "observer": "".join(found.observers), "healthy": ""}
    return named.get(found.kind, found.kind)


def prototype(tallies: Sequence[Tally]) -> str:
    """What the prototype says of the same counts."""
    weights = [weigh(one) for one in tallies]
    well = sum(healthy for healthy, _, _ in weights)
    gain = [ill - healthy for healthy, ill, _ in weights]
    scores = {"": log(0.99) + well, "target": log(0.004) + well + sum(gain)}
    for zone in ZONES:
        inside = sum(g for g, one in zip(gain, tallies, strict=True) if one.zone == zone)
        scores[zone] = log(0.003 / len(ZONES)) + well + inside
    for g, one in zip(gain, tallies, strict=True):
        scores[one.observer] = log(0.002 / len(tallies)) + well + g
    scores["part"] = log(0.001) + well + sum(log(0.4 * exp(min(g, 600)) + 0.6) for g in gain)
    best = max(scores, key=scores.__getitem__)
    sure = 1 / sum(exp(score - scores[best]) for score in scores.values()) > SURE
    return best if sure else ""


def poisson(chance: random.Random, mean: float) -> int:
    """How many calls come where so many are expected."""
    if mean > 30:
        return max(0, round(chance.gauss(mean, mean**0.5)))
    count, product, floor = 0, chance.random(), exp(-mean)
    while product > floor:
        count, product = count + 1, product * chance.random()
    return count


def run(scene: Scene, rate: int, chance: random.Random, rules: Sequence[Rule]) -> list[list[float]]:
    """One run: for each rule when it named it right, and when wrong; infinite: not at all."""
    shares = scene.bad(chance)
    counts = {name: [0, 0] for name in NAMES}
    found = [[inf, inf] for _ in rules]
    for step in range(1, int(SPANS[rate] / STEP_SECONDS) + 1):
        for name in NAMES:
            calls = poisson(chance, rate * STEP_SECONDS)
            share = shares.get(name, HEALTHY_SHARE)
            counts[name][0] += sum(chance.random() < share for _ in range(calls))
            counts[name][1] += calls
        tallies = [
            Tally(name, name.partition("/")[0], bad, calls) for name, (bad, calls) in counts.items()
        ]
        for rule, when in zip(rules, found, strict=True):
            if min(when) == inf and (name := rule(tallies)):
                when[name != scene.right] = step * STEP_SECONDS
        if all(min(when) < inf for when in found):
            break
    return found


def scored(scene: Scene, rate: int, trials: int, rules: Sequence[Rule], seed: int) -> list[Told]:
    """Many runs of a scene, for each rule."""
    chance = random.Random(f"{seed} {scene.title} {rate}")
    runs = [run(scene, rate, chance, rules) for _ in range(trials)]
    return [_told([found[index] for found in runs]) for index in range(len(rules))]


def _told(runs: list[list[float]]) -> Told:
    right = sorted(when for when, _ in runs if when < inf)
    wrong = sum(when < inf for _, when in runs)
    p50 = statistics.median(right) if right else inf
    p95 = right[min(len(right) - 1, int(0.95 * len(right)))] if right else inf
    return Told(len(right) / len(runs), wrong / len(runs), p50, p95)


# ------------------------------------------------------------------- the whole way, with judges

LEARNED_SECONDS = {1: 180.0, 10: 60.0}


class Looker:
    """One observer: its operation, and what it has told last."""

    def __init__(self, name: str, rate: int, chance: random.Random) -> None:
        self.zone, _, number = name.partition("/")
        self.observer = Observer(name, name, self.zone, "host", int(number), 0.0, 0.0)
        self.rate, self.chance, self.now = rate, chance, 1000.0
        self.operation = Operation("get", 1.0, self.now)
        self.told: Verdict | None = None
        self.state: State | None = None
        self.told_at = 0.0

    def step(self, share: float, class_: OutcomeClass) -> None:
        """A tenth of a second, of which so many calls are bad."""
        shard = self.operation.evidence.shard(1)
        for _ in range(poisson(self.chance, self.rate * STEP_SECONDS)):
            if self.chance.random() < share:
                shard.classes[class_] += 1
            else:
                shard.answered[bucket(self.chance.lognormvariate(log(0.02), 0.5))] += 1
        self.now += STEP_SECONDS
        self.operation.fold(self.now)
        if self.operation.state is not self.state or self.now - self.told_at >= 1.0:
            self.state, self.told_at = self.operation.state, self.now
            self.told = self.operation.verdict("t", None)

    def seen(self) -> Seen:
        """As the fleet file has it."""
        verdicts = (self.told,) if self.told else ()
        return Seen(self.observer._replace(written=self.told_at), "t", None, 0, verdicts)


def whole(scene: Scene, rate: int, chance: random.Random) -> tuple[float, float]:
    """When the row of the target was scoped right, and when wrong, in seconds from the first bad call on."""
    lookers = {name: Looker(name, rate, chance) for name in NAMES}
    for _ in range(int(LEARNED_SECONDS[rate] / STEP_SECONDS)):
        for looker in lookers.values():
            looker.step(HEALTHY_SHARE, OutcomeClass.FAILURE)
    shares = scene.bad(chance)
    class_ = OutcomeClass.FAILURE if scene.right == "target" else OutcomeClass.CONNECT
    for step in range(1, int(SPANS[rate] / STEP_SECONDS) + 1):
        for name, looker in lookers.items():
            looker.step(shares.get(name, HEALTHY_SHARE), class_)
        (row,) = rows([looker.seen() for looker in lookers.values()], lookers[NAMES[0]].now)
        if row.ill and (name := _name(row.scope)):
            when = step * STEP_SECONDS
            return (when, inf) if name == scene.right else (inf, when)
    return inf, inf


def whole_table(trials: int, seed: int) -> list[str]:
    """The same scenes, all the way from calls to the row."""
    lines = [
        f"From calls to the row, each observer with its own judge; {trials} runs of each.",
        "",
        "| what is wrong | 1 call/s | 10 |",
        "|---|---|---|",
    ]
    for scene in SCENES:
        cells: list[str] = []
        for rate in LEARNED_SECONDS:
            chance = random.Random(f"{seed} {scene.title} {rate}")
            runs = [whole(scene, rate, chance) for _ in range(trials)]
            cells.append(_cell(_told([list(found) for found in runs])))
        lines.append(f"| {scene.title} | {' | '.join(cells)} |")
    return lines


# ------------------------------------------------------------------------ single looks


def skewed(runs: int, seed: int) -> tuple[int, int]:
    """60, 30 and 10 % of the traffic, 1 % errors everywhere: alarms of ours, and of chi-squared on counts."""
    chance, alarms, chi = random.Random(seed), 0, 0
    for _ in range(runs):
        calls = (6000, 3000, 1000)
        bad = [sum(chance.random() < 0.01 for _ in range(n)) for n in calls]
        tallies = [Tally(zone, zone, k, n) for zone, k, n in zip(ZONES, bad, calls, strict=True)]
        alarms += bool(ours(tallies))
        mean = sum(bad) / 3
        chi += sum((k - mean) ** 2 for k in bad) / mean > 5.99  # p <= 0.05, two degrees of freedom
    return alarms, chi


def bursty(runs: int, seed: int) -> int:
    """Healthy errors in bursts, each observer's share drawn anew (Beta(0.3, 30)), 500 calls: alarms."""
    chance, alarms = random.Random(seed), 0
    for _ in range(runs):
        tallies: list[Tally] = []
        for name in NAMES:
            share = chance.betavariate(0.3, 30)
            bad = sum(chance.random() < share for _ in range(500))
            tallies.append(Tally(name, name.partition("/")[0], bad, 500))
        alarms += bool(ours(tallies))
    return alarms


def aws(runs: int, seed: int) -> int:
    """One zone at 55 %, one instance of another at 98 %, 50 calls each: how often the zone is named."""
    chance, named = random.Random(seed), 0
    for _ in range(runs):
        tallies: list[Tally] = []
        for name in NAMES:
            zone = name.partition("/")[0]
            share = 0.45 if zone == "zone-a" else 0.02 if name == NAMES[5] else 0.001
            calls = poisson(chance, 50)
            bad = sum(chance.random() < share for _ in range(calls))
            tallies.append(Tally(name, zone, bad, calls))
        named += ours(tallies) == "zone-a"
    return named


# ------------------------------------------------------------------------------ the table


def _cell(told: Told) -> str:
    when = f"{told.p50:.1f} s (p95 {told.p95:.1f})" if told.right else "-"
    return f"{when}, right {100 * told.right:.0f} %, wrong {100 * told.wrong:.0f} %"


def table(trials: int, seed: int) -> list[str]:
    """The report's table, of ours and of the prototype's rule, as lines of Markdown."""
    lines = [
        f"12 observers, 3 zones; {trials} runs of each; calls/s of each observer; seed {seed}.",
        "",
        "| what is wrong | rule | 1 call/s | 10 | 100 |",
        "|---|---|---|---|---|",
    ]
    for scene in SCENES:
        by_rate = [scored(scene, rate, trials, (ours, prototype), seed) for rate in SPANS]
        for index, rule in enumerate(("ours", "prototype's")):
            cells = " | ".join(_cell(told[index]) for told in by_rate)
            lines.append(f"| {scene.title} | {rule} | {cells} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.diagnosis observers", description=__doc__
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--whole", type=int, default=20, help="runs of the whole way (0: none)")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args(arguments)
    print("\n".join(table(options.trials, options.seed)))
    if options.whole:
        print("\n" + "\n".join(whole_table(options.whole, options.seed)))
    alarms, chi = skewed(500, options.seed)
    print(
        f"\nHealthy, traffic 60/30/10, 500 runs: {alarms} alarms (chi-squared on counts: {chi}).\n"
        f"Healthy, errors in bursts, 300 runs: {bursty(300, options.seed)} alarms.\n"
        f"One zone at 55 %, one instance of another at 98 %: named in {aws(300, options.seed)} of 300."
    )


if __name__ == "__main__":
    main()
