"""The run as JSON: the schedule, the truth, what was seen and said, what callers got, what held. Pure."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from enum import Enum
from importlib import metadata
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from .processes import downstream, load
from .schedule import POOL_CONNECTIONS, RATES

if TYPE_CHECKING:
    from .measure import Service, Stretch
    from .records import Run
    from .schedule import Phase
    from .score import Score


def text(run: Run, score: Score, phases: tuple[Phase, ...], *, version: str) -> str:
    """Everything, as JSON. Times are seconds from the start of the load; what never was is null."""
    return json.dumps(_plain(_everything(run, score, phases, version)), indent=1) + "\n"


def _everything(run: Run, score: Score, phases: tuple[Phase, ...], version: str) -> dict[str, Any]:
    return {
        "case": "exhausted-pool",
        "held": score.held,
        "seconds": run.stop - run.start,
        "versions": _versions(version),
        "machine": {"system": platform.system(), "cpus": os.cpu_count()},
        "parameters": _parameters(),
        "schedule": [asdict(phase) for phase in phases],
        "truth": {
            "spells": [
                spell._replace(
                    began=spell.began - run.start,
                    first=spell.first - run.start,
                    ended=spell.ended - run.start,
                )._asdict()
                for spell in run.spells
            ],
            "states": {target: _stretches(run, s) for target, s in score.truth.items()},
        },
        "seen": {target: _stretches(run, s) for target, s in score.seen.items()},
        "detections": [asdict(detection) for detection in score.detections],
        "false_alarms": [
            {"target": target, **_stretch(run, alarm)} for target, alarm in score.false_alarms
        ],
        "calls": {
            "whole": {chain: _service(part) for chain, part in score.whole.items()},
            **{
                name: {chain: _service(part) for chain, part in parts.items()}
                for name, parts in score.phases.items()
            },
        },
        "health_checks": {chain: claim._asdict() for chain, claim in run.claims.items()},
        "expectations": [asdict(expectation) for expectation in score.expectations],
    }


def _versions(version: str) -> dict[str, str]:
    others = {name: metadata.version(name) for name in ("httpx2", "uvicorn")}
    return {"brownout": version, "python": sys.version.split()[0], **others}


def _parameters() -> dict[str, Any]:
    return {
        "calls_per_second": RATES,
        "deadline_seconds": load.DEADLINE_SECONDS,
        "workers": downstream.WORKERS,
        "queue": downstream.QUEUE,
        "service_seconds": downstream.SERVICE_SECONDS,
        "pool": POOL_CONNECTIONS,
    }


def _service(part: Service) -> dict[str, Any]:
    return {**asdict(part), "served": part.served}


def _stretches(run: Run, stretches: list[Stretch]) -> list[dict[str, Any]]:
    return [_stretch(run, stretch) for stretch in stretches]


def _stretch(run: Run, stretch: Stretch) -> dict[str, Any]:
    began, ended = stretch.began - run.start, stretch.ended - run.start
    return stretch._replace(began=began, ended=ended)._asdict()


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, float):
        return round(value, 4) if isfinite(value) else None
    return value
