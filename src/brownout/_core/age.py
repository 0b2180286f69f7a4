"""Ages: how old what was read is, as a second latency of an operation, "read:age".

It is counted, learned and judged as latencies are, by the same machinery. What differs is told here: a name,
what is material, and the sentences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout._core.sketch import Sketch, bucket
from brownout._core.words import seconds, share

if TYPE_CHECKING:
    from brownout._core.baseline import Baseline
    from brownout._core.cell import Tick

AGE = ":age"  # ends the name of such an operation
STALE = "stale"
# What is material: twice the usual and half a second. Replicas are never at rest.
AGE_BAND = (1.0, 0.5)
_LONGEST = 240.0  # the last bucket's


def no_fresher(tick: Tick, base: Baseline) -> Tick:
    """That what is read is fresher than usual is nothing against anybody."""
    usual = 0 if base.cold else bucket(base.p50)
    return tick._replace(answered=[(max(index, usual), count) for index, count in tick.answered])


def fresh(sketch: Sketch, span: float, base: Baseline) -> str:
    """The sentence while nothing is stale."""
    if not sketch.count:
        return "nobody has read lately"
    text = f"{sketch.count} reads in {span:.1f} s are {_age(sketch)} old at the median"
    return f"{text} (usual {seconds(base.p50)})" if not base.cold else f"{text}; still learning"


def stale(sketch: Sketch, base: Baseline) -> str:
    """The sentence when reads are older than usual."""
    limit = base.thresholds[2]
    old = Sketch()
    old.answered[bucket(limit) :] = sketch.answered[bucket(limit) :]
    usual = f"usual {seconds(base.p50)}, {seconds(limit)} at most"
    if 2 * old.count >= sketch.count:
        return f"reads are {_age(sketch)} old; {usual}"
    return f"{share(old.count, sketch.count)} of reads are {_age(old)} old; {usual}"


def _age(sketch: Sketch) -> str:
    median = sketch.quantile(0.5)
    return f"more than {seconds(_LONGEST)}" if median > _LONGEST else seconds(median)
