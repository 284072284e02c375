"""The asyncio and the blocking API have the same names, signatures and docstrings."""

import inspect
from typing import Any

import pytest

from treehub_level import Level, blocking
from treehub_level.aio import level as asyncio_level
from treehub_level.aio.live import LiveSession
from treehub_level.aio.reads_writes import Snapshot, WriteBatch
from treehub_level.blocking.live import LiveSession as BlockingLiveSession
from treehub_level.http import RemoteServer
from treehub_level.http.blocking import RemoteServer as BlockingRemoteServer

PAIRS = [
    (Level, blocking.Level),
    (asyncio_level.Sublevel, blocking.Sublevel),
    (asyncio_level.Typed, blocking.Typed),
    (Snapshot, blocking.Snapshot),
    (WriteBatch, blocking.WriteBatch),
    (LiveSession, BlockingLiveSession),
    (RemoteServer, BlockingRemoteServer),
]


#: The methods of a mutable mapping that the blocking API has in addition: they cannot be awaited.
MAPPING = {"items", "pop", "popitem", "setdefault"}
#: The methods of the asyncio API that are also methods of a mapping in the blocking one.
ALSO_MAPPING = {"update"}


def public(cls: type) -> dict[str, Any]:
    """Return the public members of a class, by name, without those of a mapping."""
    return {
        name: member for name, member in inspect.getmembers(cls) if not name.startswith("_") and name not in MAPPING
    }


@pytest.fixture(params=PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def pair(request: pytest.FixtureRequest) -> Any:
    """A class of the asyncio API and its blocking counterpart."""
    return request.param


def test_counterparts_have_the_same_names(pair: Any) -> None:
    left, right = map(public, pair)
    assert left.keys() == right.keys()


def parameters(member: Any) -> Any:
    """Return the names, kinds and defaults of a member's parameters, without annotations."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]


def test_counterparts_have_the_same_signatures(pair: Any) -> None:
    left, right = map(public, pair)
    for name, member in left.items():
        if callable(member) and name not in ALSO_MAPPING:
            assert parameters(member) == parameters(right[name]), name


def test_counterparts_have_the_same_constructor() -> None:
    assert parameters(Level.__init__) == parameters(blocking.Level.__init__)


def test_counterparts_have_the_same_docstrings_and_every_member_has_one(pair: Any) -> None:
    left, right = map(public, pair)
    for name, member in left.items():
        if callable(member) or isinstance(member, property):
            assert inspect.getdoc(member), f"{name} has no docstring"
            assert name in ALSO_MAPPING or inspect.getdoc(member) == inspect.getdoc(right[name]), name


def test_every_option_is_keyword_only(pair: Any) -> None:
    positional_defaults = {"default", "changes", "limit"}
    for name, member in public(pair[0]).items():
        if callable(member) and name != "Level":
            for p in inspect.signature(member).parameters.values():
                if p.default is not p.empty:
                    assert p.kind is p.KEYWORD_ONLY or p.name in positional_defaults, f"{name}({p.name})"


def test_asyncio_contexts_have_the_members_of_blocking_contexts(pair: Any) -> None:
    left, right = pair
    assert hasattr(left, "__aenter__") == hasattr(right, "__enter__")
    assert not hasattr(left, "__enter__")
