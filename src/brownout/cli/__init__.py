"""The command `brownout`: parse, call the library, print.

Exit codes: 0; 1 for what was asked to be judged and failed (`status --strict`, `demo`); 2 for a wrong
command, or when there is nothing of what was asked for. An error is one message: what, where, what to do.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from math import inf
from typing import TYPE_CHECKING, NoReturn

from brownout.cli import doctor, duration, fault, replay, see, serve, unknown
from brownout.errors import BrownoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130  # as a shell reports SIGINT and SIGPIPE
PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: the process's); the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrownoutError as error:
        print(f"brownout: {error}", file=sys.stderr)
        return 2
    return code


def _silence() -> None:
    """Nobody reads: what is still buffered may go nowhere, or the interpreter complains at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _demo(options: argparse.Namespace) -> int:
    try:
        from brownout.cases.exhausted_pool import demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "brownout":
            raise
        message = (
            f'the demo needs {error.name}, which is not installed: pip install "brownout[demo]"'
        )
        raise BrownoutError(message) from error
    return demo(
        faults=options.faults, json_path=options.json, out=sys.stdout, live=sys.stdout.isatty()
    )


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line more than argparse's two: how to get help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n{self.prog}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="brownout", description="See, survive and rehearse partial failure.")
    parser.add_argument("--version", action="version", version=f"brownout {_version()}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    demo = verbs.add_parser(
        "demo", help="a shop whose pool runs dry: seen, named, survived (about a minute)"
    )
    demo.add_argument(
        "--no-faults",
        dest="faults",
        action="store_false",
        help="play it without any fault: the expectations must fail",
    )
    demo.add_argument("--json", metavar="FILE", help="write everything that was measured to FILE")
    demo.set_defaults(run=_demo)

    status = verbs.add_parser("status", help="all targets as their callers see them")
    _looking(status)
    status.add_argument("--strict", action="store_true", help="exit with 1 if any target is ill")
    status.set_defaults(run=see.status)

    watch = verbs.add_parser("watch", help="each change of a state, as it happens")
    _looking(watch)
    watch.add_argument(
        "--for",
        dest="seconds",
        type=_duration,
        default=inf,
        metavar="DURATION",
        help="end after so long, such as 10s",
    )
    watch.set_defaults(run=see.watch)

    explain = verbs.add_parser("explain", help="one target in full: every number beside its limit")
    explain.add_argument("target", metavar="TARGET")
    _looking(explain)
    explain.set_defaults(run=see.explain)

    replay.add(
        verbs.add_parser("replay", help="judge a recorded stream of calls, faster than it happened")
    )

    faults = verbs.add_parser("fault", help="failures made on purpose, each with an end")
    fault_verbs = faults.add_subparsers(dest="fault_verb", required=True, metavar="VERB")
    fault.add(fault_verbs, _duration)
    serve.add(fault_verbs, _duration)
    unknown.add(verbs, _duration)
    doctor.add(verbs)
    return parser


def _looking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", metavar="PATH", help="the fleet file (default: BROWNOUT_FLEET)")
    parser.add_argument(
        "--json", action="store_true", help="print JSON; its keys are documented and stay"
    )
    parser.add_argument("--ascii", action="store_true", help="letters alone, no shapes")


def _duration(text: str) -> float:
    try:
        return duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _version() -> str:
    try:
        return version("brownout")
    except PackageNotFoundError:
        return "(not installed)"
