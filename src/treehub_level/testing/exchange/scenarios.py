"""Scenarios of the conformance: their names, their outcomes, and playing them one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

#: Characters of a message that a failure shows.
_SHOWN = 1500


class Scene(Protocol):
    """The stage of a scenario: the program under test, and the means to talk to it."""

    def finish(self) -> None:
        """Check the rules that hold in every scenario.

        Raises:
            ConformanceError: The program under test has broken one.
        """

    def close(self) -> None:
        """Release the resources of the scenario."""


S = TypeVar("S", bound=Scene)


class ConformanceError(AssertionError):
    """The program under test does not keep the protocol.

    Attributes:
        expected: The behaviour that the protocol asks for.
        sent: The last message to the program, of any type that JSON has; ``None`` if there is none.
        received: Its reaction.
    """

    def __init__(self, expected: str, *, sent: object = None, received: object = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.sent = sent
        self.received = received

    def __str__(self) -> str:
        return f"expected: {self.expected}\nsent: {shown(self.sent)}\nreceived: {shown(self.received)}"


class UnsupportedError(Exception):
    """A scenario needs an ability or a setting that is missing. The text says which one."""


def shown(message: object) -> str:
    """Return a message as text, shortened."""
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


@dataclass(frozen=True)
class Scenario(Generic[S]):
    """A scripted set of exchanges with the program under test.

    Attributes:
        name: The name, such as ``a-repeat-gets-the-same-decision``.
        section: The section of ``docs/protocol.md`` that the scenario holds.
        summary: The behaviour, in a sentence.
        play: Plays the scenario. Raises `ConformanceError` or `UnsupportedError`.
    """

    name: str
    section: str
    summary: str
    play: Callable[[S], None]


class ScenarioSuite(Generic[S]):
    """The scenarios for one kind of program, in the order of their definition."""

    def __init__(self) -> None:
        self.scenarios: dict[str, Scenario[S]] = {}

    def scenario(self, section: str) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
        """Return a decorator that adds a function to the suite.

        The name of the scenario is that of the function, with hyphens; its summary is the first
        paragraph of the docstring.

        Args:
            section: The heading in ``docs/protocol.md``.
        """

        def add(play: Callable[[S], None]) -> Callable[[S], None]:
            name = play.__name__.replace("_", "-")
            summary = " ".join((play.__doc__ or "").partition("\n\n")[0].split())
            self.scenarios[name] = Scenario(name, section, summary, play)
            return play

        return add

    def chosen(self, only: Sequence[str] = ()) -> list[Scenario[S]]:
        """Return the scenarios of some names, or all.

        Raises:
            ValueError: There is no scenario of a name.
        """
        unknown = [name for name in only if name not in self.scenarios]
        if unknown:
            raise ValueError(f"there is no scenario {unknown[0]!r}: --list shows all of them")
        return [scenario for name, scenario in self.scenarios.items() if not only or name in only]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a scenario.

    Attributes:
        name: The name of the scenario.
        section: The section of ``docs/protocol.md`` that it holds.
        result: ``"passed"``, ``"failed"`` or ``"skipped"``.
        reason: The reason why it was skipped; the expectation that was not met; empty if it passed.
        sent: The last message before the failure.
        received: The reaction to it.
    """

    name: str
    section: str
    result: Literal["passed", "failed", "skipped"]
    reason: str = ""
    sent: Any = None
    received: Any = None


def play_all(scenarios: Iterable[Scenario[S]], make_scene: Callable[[Scenario[S]], S]) -> Iterator[Outcome]:
    """Play scenarios, and yield the outcome of each when it is known.

    Args:
        scenarios: The scenarios.
        make_scene: Returns the argument for a scenario.
    """
    for scenario in scenarios:
        yield _outcome(scenario, make_scene)


def _outcome(scenario: Scenario[S], make_scene: Callable[[Scenario[S]], S]) -> Outcome:
    try:
        with closing(make_scene(scenario)) as scene:
            scenario.play(scene)
            scene.finish()
    except UnsupportedError as missing:
        return Outcome(scenario.name, scenario.section, "skipped", str(missing))
    except ConformanceError as error:
        return Outcome(scenario.name, scenario.section, "failed", error.expected, error.sent, error.received)
    except Exception as error:  # the program under test may cause any error here
        return Outcome(scenario.name, scenario.section, "failed", f"no {type(error).__name__}: {error}")
    return Outcome(scenario.name, scenario.section, "passed")
