"""Ranges against a model: whatever the keys and the options, the answer is that of a sorted dict."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.shared

#: The edges: NUL, either side of the metadata's prefix, the highest keys of one, two, three and four bytes of UTF-8.
EDGES = '\x00\x01 !"#/19:Iaz\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000😀\U0010ffff'
keys = st.text(st.one_of(st.sampled_from(EDGES), st.characters(exclude_categories=["Cs"])), max_size=4)
legal_keys = keys.filter(lambda key: key >= '"')


def optional(strategy: Any) -> Any:
    return st.none() | strategy


options = st.fixed_dictionaries(
    {},
    optional={
        "lower": st.tuples(st.sampled_from(["gt", "gte"]), optional(keys)),
        "upper": st.tuples(st.sampled_from(["lt", "lte"]), optional(keys)),
        "prefix": optional(keys),
        "reverse": st.booleans(),
        "limit": optional(st.integers(0, 12)),
        "even": st.booleans(),
    },
)


def expected(model: Any, query: Any) -> Any:
    """What a sorted dict answers."""
    pairs = sorted(model.items())
    name, bound = query.get("lower", ("gt", None))
    if bound is not None:
        pairs = [pair for pair in pairs if pair[0] > bound or (name == "gte" and pair[0] == bound)]
    name, bound = query.get("upper", ("lt", None))
    if bound is not None:
        pairs = [pair for pair in pairs if pair[0] < bound or (name == "lte" and pair[0] == bound)]
    if query.get("prefix") is not None:
        pairs = [pair for pair in pairs if pair[0].startswith(query["prefix"])]
    if query.get("reverse"):
        pairs.reverse()
    if query.get("even"):
        pairs = [pair for pair in pairs if pair[1] % 2 == 0]
    return pairs[: query.get("limit")]


def asked(query: Any) -> Any:
    """The options of a call, without the filter."""
    given = {name: query[name] for name in ("prefix", "reverse", "limit") if name in query}
    return given | dict(query[end] for end in ("lower", "upper") if end in query)


async def assert_answers(reader: Any, model: Any, query: Any) -> None:
    pairs = expected(model, query)
    even = query.get("even")
    by_pair = asked(query) | ({"filter": lambda key, value: value % 2 == 0} if even else {})
    assert await reader.query(**by_pair) == pairs
    assert [pair async for pair in reader.scan(**by_pair)] == pairs
    assert await reader.count(**by_pair) == len(pairs)
    assert await reader.values(**asked(query), **({"filter": lambda value: value % 2 == 0} if even else {})) == [
        value for _, value in pairs
    ]
    assert await reader.keys(**asked(query), **({"filter": lambda key: model[key] % 2 == 0} if even else {})) == [
        key for key, _ in pairs
    ]


settled = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settled
@given(model=st.dictionaries(keys, st.integers(0, 100), max_size=12), queries=st.lists(options, max_size=4))
async def test_a_plain_store_answers_like_a_sorted_dict(level: Any, model: Any, queries: Any) -> None:
    await level.clear()
    await level.load(model.items())
    for query in queries:
        await assert_answers(level, model, query)


@settled
@given(model=st.dictionaries(legal_keys, st.integers(0, 100), max_size=12), queries=st.lists(options, max_size=4))
async def test_a_server_and_a_client_answer_like_a_sorted_dict(
    server: Any, client: Any, model: Any, queries: Any
) -> None:
    for level in (server, client):
        await level.clear()
        await level.load(model.items())
        for query in queries:
            await assert_answers(level, model, query)


@settled
@given(model=st.dictionaries(keys, st.integers(0, 100), max_size=12), queries=st.lists(options, max_size=4))
async def test_a_sublevel_answers_like_a_sorted_dict_of_its_own(level: Any, model: Any, queries: Any) -> None:
    sublevel = level.sublevel("sub")
    await level.clear()
    await level.load([("s", 0), ("sub", 0), ("sub.", 0), ("sub0", 0), ("sub0a", 0), ("t", 0), ("sub\uffff", 0)])
    await sublevel.load(model.items())
    for query in queries:
        await assert_answers(sublevel, model, query)


@settled
@given(
    before=st.dictionaries(keys, st.integers(0, 100), max_size=12),
    after=st.dictionaries(keys, st.integers(0, 100), max_size=12),
    query=options,
)
async def test_a_snapshot_answers_like_a_copy_of_the_dict(level: Any, before: Any, after: Any, query: Any) -> None:
    await level.clear()
    await level.load(before.items())
    async with level.snapshot() as snapshot:
        await level.clear()
        await level.load(after.items())
        await assert_answers(snapshot, before, query)
    await assert_answers(level, after, query)


@settled
@given(model=st.dictionaries(keys, st.integers(0, 100), max_size=12), query=options)
async def test_clear_deletes_what_keys_names(level: Any, model: Any, query: Any) -> None:
    bounds = {name: value for name, value in asked(query).items() if name not in ("reverse", "limit")}
    await level.clear()
    await level.load(model.items())
    doomed = await level.keys(**bounds)
    assert await level.clear(**bounds) == len(doomed)
    assert await level.query() == sorted((key, value) for key, value in model.items() if key not in doomed)
