"""The short share of T18. ``python -m tests.second_loops`` is for longer runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest

from treehub_level import MemoryBackend
from treehub_level.aio import live, threads, worker
from treehub_level.blocking import LiveSession

from .__main__ import BACKENDS, run
from .live import LIVE_KINDS, live_elsewhere, live_exit_in_thread, live_stopping
from .rounds import KINDS, Pair, one_after_another


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_works_in_an_event_loop_that_did_not_open_the_level(kind: str, backend: str) -> None:
    run(kind, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", LIVE_KINDS)
def test_a_live_session_works_beside_its_loop_and_its_thread_or_says_that_it_cannot(kind: str, backend: str) -> None:
    run(kind, backend)


def test_answers_that_go_to_the_opening_loop_are_found() -> None:
    opening: list[asyncio.AbstractEventLoop] = []

    def answer_the_first(loop: Any, *call: Any) -> None:
        opening.append(loop)
        if not opening[0].is_closed():
            opening[0].call_soon_threadsafe(*call)

    pair = _a_pair()
    with (
        mock.patch.object(threads, "answer", answer_the_first),
        mock.patch.object(worker, "answer", answer_the_first),
        pytest.raises(AssertionError, match="write never returns in another event loop"),
    ):
        one_after_another(pair)
    pair.server._blocking.close()
    pair.client._blocking.close()


def _a_pair() -> Pair:
    made: dict[str, MemoryBackend] = {}
    return Pair(lambda name: made.setdefault(name, MemoryBackend(name)), "", patience=0.5)


def test_control_answers_of_a_live_session_that_get_lost_are_found() -> None:
    with mock.patch.object(live, "answer"), pytest.raises(AssertionError, match="never returns"):
        live_elsewhere(_a_pair())


def test_control_a_wait_for_a_loop_that_has_stopped_is_found() -> None:
    with mock.patch.object(live, "_PATIENCE", 3600), pytest.raises(AssertionError, match="never returns"):
        live_stopping(_a_pair())


def test_control_a_thread_that_ends_without_ending_its_session_is_found() -> None:
    with (
        mock.patch.object(LiveSession, "_notify"),
        pytest.raises(AssertionError, match="never returns in another thread"),
    ):
        live_exit_in_thread(_a_pair())


#: A process leaves a live session in a fork, where its thread does not exist.
FORKING = """
import os, sys
from treehub_level import Level, NotOpenError, blocking
server = blocking.Level("server", backend="memory", mode=Level.SERVER)
client = blocking.Level("client", backend="memory", mode=Level.CLIENT)
with server, client, client.live(server) as session:
    session.in_sync()
    child = os.fork()
    if child == 0:
        for call in (session.pause, session.resume, session.in_sync):
            try:
                call()
            except NotOpenError:
                continue
            os._exit(2)
        session.__exit__(None, None, None)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    session.in_sync()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_fork_may_leave_the_live_session_of_its_parent() -> None:
    run = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.strip() == "0", run.stderr
