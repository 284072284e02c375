"""The command line of the two simulations, and the loop that their tests share."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NoReturn

from .configuration import FOCUS, MECHANISMS, Configuration, random_configuration
from .schedule import Schedule, Trace
from .sides import ClientUnderTest, InvariantError, ServerUnderTest

#: Runs the schedule of a seed, with one mechanism removed, with one stressed, telling somebody what happens.
Run = Callable[[int, "str | None", "str | None", "Trace | None"], "Counter[str]"]
#: Makes a server and its clients, for the length of one schedule.
SetUp = Callable[
    [random.Random, Configuration], AbstractContextManager[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]
]


def run_seed(
    seed: int, set_up: SetUp, without: str | None = None, focus: str | None = None, trace: Trace | None = None
) -> Counter[str]:
    """Run the schedule of one seed.

    Args:
        seed: Decides everything.
        world: What it happens to.
        without: A mechanism to remove.
        focus: A mechanism to stress, if there is a configuration for that; otherwise the seed draws one.
        say: Is told what happens.

    Raises:
        InvariantError: Something that must hold did not. Anything else that is raised is a failure too.
    """
    configuration = FOCUS.get(focus or "") or random_configuration(random.Random(f"configuration {seed}"))
    configuration = replace(configuration, without=frozenset({without} if without else ()))
    rng = random.Random(seed)
    with set_up(rng, configuration) as (server, clients):
        return Schedule(rng, configuration, server, clients, trace).run()


def first_violation(
    seeds: range, run: Run, without: str | None = None, focus: str | None = None
) -> tuple[int, Exception] | None:
    """The first seed of these whose schedule breaks something, and what it breaks."""
    for seed in seeds:
        try:
            run(seed, without, focus, None)
        except Exception as violation:
            return seed, violation
    return None


def _sentence(violation: Exception) -> str:
    return str(violation) if isinstance(violation, InvariantError) else repr(violation)


def _replay(seed: int, run: Run, without: str | None, focus: str | None) -> NoReturn:
    """Run one schedule, and print everything that happens in it."""
    try:
        counts = run(seed, without, focus, print)
    except InvariantError as violation:
        sys.exit(f"seed {seed}: {violation}")
    print(f"seed {seed} holds: {dict(counts)}")
    sys.exit()


def main(
    run: Run,
    description: str,
    faults: Iterable[str] = (),
    runs: Mapping[str, Callable[[], AbstractContextManager[Run]]] | None = None,
) -> None:
    """Run schedules as the command line says, and print what they break.

    Args:
        run: Runs one.
        description: What is said of it.
        faults: What can be put in, besides removing mechanisms.
        runs: What else they can be run over, by name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="replay this schedule")
    parser.add_argument("--start", type=int, default=0, help="the first seed of several")
    parser.add_argument("--schedules", type=int, default=1000, help="how many to run")
    parser.add_argument(
        "--without",
        choices=sorted({*MECHANISMS, *faults}),
        help="remove one mechanism, or put a fault in; violations must follow",
    )
    parser.add_argument("--focus", choices=sorted(FOCUS), help="stress one mechanism; by default the one removed")
    if runs:
        parser.add_argument("--over", choices=sorted(runs), help="run it over this backend, rather than in memory")
    arguments = parser.parse_args()
    with runs[arguments.over]() if runs and arguments.over else nullcontext(run) as chosen:
        sys.exit(_run_all(chosen, arguments))


def _run_all(run: Run, arguments: argparse.Namespace) -> bool:
    """Whether there were violations."""
    without, focus = arguments.without, arguments.focus or arguments.without
    if arguments.seed is not None:
        _replay(arguments.seed, run, without, focus)
    counts: Counter[str] = Counter()
    violations = 0
    for seed in range(arguments.start, arguments.start + arguments.schedules):
        try:
            counts += run(seed, without, focus, None)
        except Exception as violation:
            violations += 1
            if violations <= 3:
                print(f"seed {seed}: {_sentence(violation)}")
    print(f"without {without or 'nothing'}: {violations} violations in {arguments.schedules} schedules")
    print(f"  {dict(counts)}")
    return violations > 0
