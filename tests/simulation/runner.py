"""The command line of the simulations, and the loop that their tests share."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NoReturn

from .configuration import FOCUS, MECHANISMS, Configuration, random_configuration
from .schedule import Schedule, Trace
from .sides import ClientUnderTest, InvariantError, ServerUnderTest

#: Runs the schedule of a seed. The other arguments are ``without``, ``focus`` and ``trace`` of
#: `run_seed`.
Run = Callable[[int, "str | None", "str | None", "Trace | None"], "Counter[str]"]
#: Creates a server and its clients for one schedule.
SetUp = Callable[
    [random.Random, Configuration], AbstractContextManager[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]
]


def run_seed(
    seed: int, set_up: SetUp, without: str | None = None, focus: str | None = None, trace: Trace | None = None
) -> Counter[str]:
    """Run the schedule of one seed.

    Args:
        seed: A random seed, which decides everything.
        set_up: Creates the server and the clients.
        without: A mechanism to remove, or a fault to inject.
        focus: A mechanism to stress, if `FOCUS` has a configuration for it. Otherwise the
            configuration is drawn at random.
        trace: Called with a line for each event.

    Raises:
        InvariantError: An invariant was violated. Any other exception is a failure, too.
    """
    configuration = FOCUS.get(focus or "") or random_configuration(random.Random(f"configuration {seed}"))
    configuration = replace(configuration, without=frozenset({without} if without else ()))
    rng = random.Random(seed)
    with set_up(rng, configuration) as (server, clients):
        return Schedule(rng, configuration, server, clients, trace).run()


def first_violation(
    seeds: Sequence[int], run: Run, without: str | None = None, focus: str | None = None
) -> tuple[int, Exception] | None:
    """Return the first seed whose schedule fails, and the failure; ``None`` if all schedules pass.

    Raises:
        AttributeError, NameError: The fault itself is broken: it patches or reads a name that does
            not exist.
    """
    for seed in seeds:
        try:
            run(seed, without, focus, None)
        except (AttributeError, NameError):
            raise
        except Exception as violation:
            return seed, violation
    return None


def _sentence(violation: Exception) -> str:
    return str(violation) if isinstance(violation, InvariantError) else repr(violation)


def _replay(seed: int, run: Run, without: str | None, focus: str | None) -> NoReturn:
    """Run one schedule, and print its trace."""
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
    """Run schedules as the command line demands, and print their violations.

    Args:
        run: Runs one schedule.
        description: The description in ``--help``.
        faults: Faults that ``--without`` offers besides the mechanisms.
        runs: Alternatives to ``run`` that ``--over`` offers, by name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run this schedule only, and print its trace")
    parser.add_argument("--start", type=int, default=0, help="the first seed of several")
    parser.add_argument("--schedules", type=int, default=1000, help="the number of schedules")
    parser.add_argument(
        "--without",
        choices=sorted({*MECHANISMS, *faults}),
        help="remove one mechanism, or inject a fault; violations must follow",
    )
    parser.add_argument("--focus", choices=sorted(FOCUS), help="stress one mechanism; by default the removed one")
    if runs:
        parser.add_argument("--over", choices=sorted(runs), help="run over this backend instead of memory")
    arguments = parser.parse_args()
    with runs[arguments.over]() if runs and arguments.over else nullcontext(run) as chosen:
        sys.exit(_run_all(chosen, arguments))


def _run_all(run: Run, arguments: argparse.Namespace) -> bool:
    """Run all schedules. Return True if there were violations."""
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
