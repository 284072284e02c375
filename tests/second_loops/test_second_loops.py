"""The short share of T18. ``python -m tests.second_loops`` is for longer runs."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest

from treehub_level import MemoryBackend
from treehub_level.aio import threads, worker

from .__main__ import BACKENDS, run
from .rounds import KINDS, Pair, one_after_another


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_works_in_an_event_loop_that_did_not_open_the_level(kind: str, backend: str) -> None:
    run(kind, backend)


def test_answers_that_go_to_the_opening_loop_are_found() -> None:
    opening: list[asyncio.AbstractEventLoop] = []

    def answer_the_first(loop: Any, *call: Any) -> None:
        opening.append(loop)
        if not opening[0].is_closed():
            opening[0].call_soon_threadsafe(*call)

    made: dict[str, MemoryBackend] = {}
    pair = Pair(lambda name: made.setdefault(name, MemoryBackend(name)), "", patience=0.5)
    with (
        mock.patch.object(threads, "answer", answer_the_first),
        mock.patch.object(worker, "answer", answer_the_first),
        pytest.raises(AssertionError, match="write never returns in another event loop"),
    ):
        one_after_another(pair)
    pair.server._blocking.close()
    pair.client._blocking.close()
