"""Ranges against a model: for any keys and options, the result equals that of a sorted dict."""

from typing import Any

import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ranges import asked, expected, is_even, keys, legal_keys, options

pytestmark = pytest.mark.shared


async def assert_answers(reader: Any, model: Any, query: Any) -> None:
    pairs = expected(model, query)
    even = query.get("even")
    by_pair = asked(query) | ({"filter": lambda key, value: is_even(value)} if even else {})
    assert await reader.query(**by_pair) == pairs
    assert [pair async for pair in reader.scan(**by_pair)] == pairs
    assert await reader.count(**by_pair) == len(pairs)
    assert await reader.values(**asked(query), **({"filter": is_even} if even else {})) == [value for _, value in pairs]
    assert await reader.keys(**asked(query), **({"filter": lambda key: is_even(model[key])} if even else {})) == [
        key for key, _ in pairs
    ]


settled = settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])


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
