"""The outcomes of scenarios as text for a terminal, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TextIO

from .scenarios import Outcome, Scenario, shown


def write_list(scenarios: Iterable[Scenario[Any]], out: TextIO) -> None:
    """Write the names of scenarios, their sections and their summaries."""
    for scenario in scenarios:
        print(f"{scenario.name}  ({scenario.section})\n    {scenario.summary}", file=out)


def write_table(outcomes: Iterable[Outcome], out: TextIO) -> list[Outcome]:
    """Write a line for each outcome as soon as it is known, then the failures and a summary.

    Returns:
        The outcomes.
    """
    seen: list[Outcome] = []
    for outcome in outcomes:
        seen.append(outcome)
        note = outcome.reason if outcome.result == "skipped" else outcome.section
        result = "FAILED" if outcome.result == "failed" else outcome.result
        print(f"{result:8} {outcome.name:62} {note}", file=out, flush=True)
    for outcome in seen:
        if outcome.result == "failed":
            print(f"\nFAILED   {outcome.name}  (docs/protocol.md, {outcome.section})", file=out)
            print(f"  expected  {outcome.reason}", file=out)
            print(f"  sent      {shown(outcome.sent)}", file=out)
            print(f"  received  {shown(outcome.received)}", file=out)
    print(f"\n{summary(seen)}", file=out)
    return seen


def write_json(outcomes: Iterable[Outcome], out: TextIO) -> list[Outcome]:
    """Write a JSON array of the outcomes, and return them."""
    seen = [*outcomes]
    json.dump([asdict(outcome) for outcome in seen], out, ensure_ascii=False, indent=2, default=repr)
    out.write("\n")
    return seen


def summary(outcomes: Iterable[Outcome]) -> str:
    """Return the numbers of outcomes of each kind, such as ``3 passed, 1 failed, 0 skipped``."""
    counts = Counter(outcome.result for outcome in outcomes)
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
