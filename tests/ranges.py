"""Strategies for keys and ranges, and a sorted dict as the model of every read."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

#: Edge cases: NUL, both sides of the metadata's prefix, the least and greatest characters of each
#: length in UTF-8.
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


def is_even(value: Any) -> bool:
    return isinstance(value, int) and value % 2 == 0


def expected(model: Any, query: Any) -> Any:
    """The pairs that a query of a sorted dict returns."""
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
        pairs = [pair for pair in pairs if is_even(pair[1])]
    return pairs[: query.get("limit")]


def asked(query: Any) -> Any:
    """The range options of a query, without its filter."""
    given = {name: query[name] for name in ("prefix", "reverse", "limit") if name in query}
    return given | dict(query[end] for end in ("lower", "upper") if end in query)
