"""Clients with one fault each, and the scenario that is named for it.

A fault is the removal of a mechanism of the Python client (`simulation.faults`), another patch of
it, or a driver that does one command wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from simulation.faults import FAULTS

from treehub_level.errors import ForbiddenError, ProtocolError, StoreMismatchError, TransportError
from treehub_level.http.blocking import RemoteServer
from treehub_level.replication import client, reply_handler
from treehub_level.replication.limits import PushLimits
from treehub_level.replication.progress import ProgressCheck
from treehub_level.replication.records import read_state
from treehub_level.replication.reply_handler import ReplyHandler
from treehub_level.testing.exchange.driver import PythonDriver

from .local_client import LocalClient


class BlockingDriver(PythonDriver):
    """The driver of the blocking API over memory."""

    def __init__(self) -> None:
        super().__init__("memory", None)


@dataclass(frozen=True)
class ClientFault:
    """A fault of a client.

    Attributes:
        removals: The mechanisms to remove, by their names in `simulation.faults`.
        patches: Further patches.
        driver: The driver.
    """

    removals: Sequence[str] = ()
    patches: Sequence[tuple[Any, str, Any]] = ()
    driver: type[BlockingDriver] = BlockingDriver


@contextmanager
def faulty_client(fault: ClientFault) -> Iterator[LocalClient]:
    """Put a fault into the Python client for the length of the block."""
    with ExitStack() as stack:
        removals = [patch for name in fault.removals for patch in FAULTS[name]]
        for patch in [*removals, *fault.patches]:
            stack.enter_context(mock.patch.object(*patch))
        yield LocalClient(fault.driver())


# ------------------------------------------------------------------------------------ drivers


class ForgetsItsJournal(BlockingDriver):
    def conflicts(self, store: str) -> list[dict[str, Any]]:
        return []


class ForgetsReasons(BlockingDriver):
    def conflicts(self, store: str) -> list[dict[str, Any]]:
        return [{**conflict, "reason": None} for conflict in super().conflicts(store)]


class WritesOneByOne(BlockingDriver):
    def batch(self, store: str, changes: list[list[Any]]) -> None:
        for change in changes:
            super().batch(store, [change])


class IgnoresErrors(BlockingDriver):
    def sync(self, store: str, url: str) -> None:
        with suppress(TransportError, ForbiddenError):
            super().sync(store, url)


class IgnoresImpossibleReplies(BlockingDriver):
    def sync(self, store: str, url: str) -> None:
        with suppress(ProtocolError):
            super().sync(store, url)


class NeverPulls(BlockingDriver):
    def sync(self, store: str, url: str) -> None:
        with RemoteServer(url, retries=0) as server:
            self._stores[store].sync(server, pull=False)


class NeverPushes(BlockingDriver):
    def sync(self, store: str, url: str) -> None:
        with RemoteServer(url, retries=0) as server:
            self._stores[store].sync(server, push=False)


class FollowsAnyServer(BlockingDriver):
    def sync(self, store: str, url: str) -> None:
        try:
            super().sync(store, url)
        except StoreMismatchError:
            with RemoteServer(url, retries=0) as server:
                self._stores[store].rebind(server)
                self._stores[store].sync(server)


class FollowsAll(BlockingDriver):
    def open(self, store: str, path: str, follow: list[str] | None = None) -> None:
        super().open(store, path)


class UnfollowsNothing(BlockingDriver):
    def unfollow(self, store: str, prefix: str) -> None:
        pass


class LosesItsStore(BlockingDriver):
    def close(self, store: str) -> None:
        super().close(store)
        self._memories.pop(store)


class SortsByUTF16(BlockingDriver):
    def entries(self, store: str) -> list[list[Any]]:
        return sorted(super().entries(store), key=lambda entry: entry[0].encode("utf-16-be"))


class StoresNoNull(BlockingDriver):
    def put(self, store: str, key: str, value: Any) -> None:
        super().put(store, key, value or 0)


class ReadsNoAdvice(BlockingDriver):
    def read(self, text: str, encoding: str, request: dict[str, Any]) -> dict[str, Any]:
        return {**super().read(text, encoding, request), "refill": False}


_READ_STATE = read_state


def _forget_the_frozen_push(*arguments: Any) -> Any:
    return replace(_READ_STATE(*arguments), push=None)


_APPLY_PAGE = ReplyHandler.apply_page


def _keep_the_push(handler: Any, page: Any) -> None:
    push = handler._state.push
    _APPLY_PAGE(handler, page)
    if page.ack is None:
        handler._state = replace(handler._state, push=push)


def _nothing(*_: Any) -> None:
    return None


_KEEPS_ABSENT_KEYS = ClientFault(["absent_in_piece"])
_ONE_BY_ONE = ClientFault(driver=WritesOneByOne)
_NO_JOURNAL = ClientFault(driver=ForgetsItsJournal)
_IS_ENDLESS = ClientFault(patches=[(ProgressCheck, "check", _nothing)])
_NEVER_PUSHES = ClientFault(driver=NeverPushes)
_NEVER_PULLS = ClientFault(driver=NeverPulls)
_IGNORES_ERRORS = ClientFault(driver=IgnoresErrors)

#: The fault that each scenario is to find.
CLIENT_FAULTS: dict[str, ClientFault] = {
    # conflicts
    "the-server-wins-a-conflict": _NO_JOURNAL,
    "a-rejected-change-is-journaled": _NO_JOURNAL,
    "deletes-conflict-as-other-changes-do": _NO_JOURNAL,
    "equal-changes-are-no-conflict": ClientFault(patches=[(reply_handler, "same_record", lambda *_: False)]),
    # fills
    "a-new-client-takes-the-live-entries": ClientFault(patches=[(client, "fill_of", _nothing)]),
    "a-range-that-changes-while-it-is-filled-ends-right": ClientFault(
        patches=[(ReplyHandler, "_write_page", _nothing)]
    ),
    "an-interrupted-fill-goes-on-after-its-last-part": ClientFault(driver=LosesItsStore),
    "an-entry-beats-a-change-that-was-compared-with-nothing": ClientFault(["piece_beats_unchecked"]),
    "a-change-is-not-pushed-before-its-key-is-filled": ClientFault(["unchecked_freeze", "piece_beats_unchecked"]),
    # groups
    "a-batch-is-pushed-as-a-group": _ONE_BY_ONE,
    "a-group-that-loses-one-change-loses-all": ClientFault(["groups_lose_whole"]),
    "a-rejected-group-is-lost-as-a-whole": _ONE_BY_ONE,
    "batches-that-share-a-key-are-one-group": _ONE_BY_ONE,
    # history
    "a-restored-server-is-recognised": _KEEPS_ABSENT_KEYS,
    "a-reset-decides-on-local-changes-by-the-log": ClientFault(["reset_checks_dirty"]),
    "an-interrupted-reset-goes-on": _KEEPS_ABSENT_KEYS,
    "forgotten-deletes-are-learnt-by-a-reset": _KEEPS_ABSENT_KEYS,
    "a-forked-client-takes-a-new-id": ClientFault(patches=[(ReplyHandler, "apply_fork", _nothing)]),
    "another-server-is-not-followed": ClientFault(driver=FollowsAnyServer),
    # hostile servers
    "impossible-replies-to-a-pull-change-nothing": ClientFault(["stale_replies"]),
    "impossible-replies-to-a-push-change-nothing": ClientFault(patches=[(client, "_contradiction", _nothing)]),
    "impossible-replies-to-a-fill-change-nothing": ClientFault(driver=IgnoresImpossibleReplies),
    "the-vectors-of-replies-are-read": ClientFault(driver=ReadsNoAdvice),
    "a-session-of-resets-ends": _IS_ENDLESS,
    "a-session-of-rejections-ends": _IS_ENDLESS,
    "a-session-of-short-pages-ends": _IS_ENDLESS,
    # optional abilities
    "a-push-that-is-too-large-is-sent-in-parts": ClientFault(
        patches=[(PushLimits, "may_be_too_large", lambda *_: False)]
    ),
    "a-client-that-may-not-write-pulls": _NEVER_PUSHES,
    # ranges
    "a-client-has-the-keys-of-its-ranges-alone": ClientFault(driver=FollowsAll),
    "a-write-outside-of-the-ranges-is-pushed-and-removed": ClientFault(driver=FollowsAll),
    "a-range-is-followed-and-unfollowed-without-loss": ClientFault(driver=UnfollowsNothing),
    # refusals
    "a-refused-change-is-replaced-and-journaled-with-its-reason": ClientFault(driver=ForgetsReasons),
    "a-refusal-whose-reply-is-lost-heals": _NO_JOURNAL,
    "a-refused-group-is-lost-as-a-whole": _ONE_BY_ONE,
    # synchronising
    "local-writes-are-pushed": _NEVER_PUSHES,
    "writes-of-others-are-pulled": _NEVER_PULLS,
    "a-store-that-is-opened-again-goes-on": ClientFault(driver=LosesItsStore),
    "pages-are-pulled-one-after-another": _NEVER_PULLS,
    "a-push-that-is-not-decided-is-frozen-again": ClientFault(patches=[(ReplyHandler, "apply_page", _keep_the_push)]),
    "keys-of-all-scripts-are-in-the-order-of-their-bytes": ClientFault(driver=SortsByUTF16),
    "values-pass-through-unaltered": ClientFault(driver=StoresNoNull),
    # an unreliable network
    "a-lost-request-is-sent-again": _IGNORES_ERRORS,
    "a-lost-reply-to-a-push-is-asked-for-again": _IGNORES_ERRORS,
    "a-frozen-push-is-sent-until-it-is-decided": ClientFault(patches=[(client, "read_state", _forget_the_frozen_push)]),
    "a-newer-write-of-a-pushed-key-is-kept": ClientFault(["compare_and_clean"]),
    "a-request-that-is-delivered-twice-counts-once": _NEVER_PUSHES,
    "a-reply-to-another-request-is-ignored": ClientFault(["stale_replies"]),
    "a-page-that-is-lost-is-pulled-again": _IGNORES_ERRORS,
    "a-server-that-fails-changes-nothing": _IGNORES_ERRORS,
}
