"""`ProgressCheck`: the progress that a server's replies must bring, so that every session ends.

A session ends when both sides are drained. A server that is damaged or hostile could keep it going
for ever: with pages that announce more pages, with rejections without a reason, with one reset
after another. ``docs/protocol.md``, "Progress", lists the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .. import _core
from ..backends.base import Entry
from ..errors import ProtocolError
from .messages import Forked, ParsedReply, PulledPage, Request, Reset
from .reply_handler import ReplyOutcome

#: Stale replies of a session in succession.
MAX_STALE_REPLIES: Final = 8
#: Resets of a session; its forks; its rejections without a later change. A restored backup, and a
#: push that an earlier session has withdrawn, cause one each.
MAX_FRUITLESS: Final = 8
#: Short pages of a session that announce more: those that move the CID, together with the page
#: before them, by less than `SHORT_CHANGES` and less than the limit of the request. A server cuts a
#: page before changes that belong together, and sends these whole in the next one; or it cuts pages
#: for their size, at 64 KiB or more. So short pages hold `SHORT_BYTES` on average, unless a token
#: for some keys hides them: each `SHORT_BYTES` makes up for one page.
MAX_SHORT_PAGES: Final = 1000
SHORT_CHANGES: Final = 1000
SHORT_BYTES: Final = 8 << 10
#: Exchanges of a session: 100 million changes in the shortest pages that are not short.
MAX_ROUNDS: Final = 100_000

_MEND: Final = "the server is damaged or broken: check its store with `treehub-level verify` there"
_AGAIN: Final = "All replies so far were applied: call sync() again to go on"


class ProgressCheck:
    """Counts the replies of one session that bring it no nearer to its end."""

    def __init__(self) -> None:
        self._rounds = 0
        self._stale = 0
        self._resets = 0
        self._forks = 0
        self._rejections = 0
        self._unread = 0
        self._unfilled = 0
        self._refills = 0
        self._short_pages = 0.0
        #: How far the page before moved the CID, if it announced more.
        self._moved = 0
        self._pulled_to = -1
        #: The rejected keys whose later changes are still to be pulled.
        self._owed: set[str] = set()

    def check(self, request: Request, reply: ParsedReply, outcome: ReplyOutcome | None) -> None:
        """Count a reply.

        Args:
            request: The request.
            reply: The reply.
            outcome: The effect of the reply; ``None`` if it was ignored since it is stale.

        Raises:
            ProtocolError: The session makes no progress.
        """
        self._rounds += 1
        if self._rounds >= MAX_ROUNDS:
            raise ProtocolError(f"the session has not ended after {MAX_ROUNDS:,} exchanges. {_AGAIN}")
        if outcome is None:
            self._stale += 1
            if self._stale >= MAX_STALE_REPLIES:
                raise ProtocolError(
                    f"{MAX_STALE_REPLIES} successive replies did not answer the request that was sent: check that no "
                    "proxy caches replies, and that no other process uses this client store"
                )
            return
        self._stale = 0
        if isinstance(reply, Reset):
            self._resets += 1
            self._fail_beyond(self._resets, "reset this client")
        elif isinstance(reply, Forked):
            self._forks += 1
            self._fail_beyond(self._forks, "refused the id of this client")
        elif isinstance(reply, PulledPage):
            self._check_page(request, reply)
            self._check_present(request, reply, outcome)
            if outcome.is_refilling:
                self._refills += 1
                self._fail_beyond(self._refills, "advised to fill all ranges again")

    def _check_page(self, request: Request, page: PulledPage) -> None:
        if request.cid != self._pulled_to:
            self._owed.clear()  # the client has pulled by other means meanwhile, or begun a reset
        self._pulled_to = page.cid
        self._owed.update(() if request.withdraw else page.rejected)
        if self._owed:
            told = (key for key, _ in (*page.entries, *page.values))
            self._owed.difference_update(map(_core.decode_key, told))
        moved, before = page.cid - page.base, self._moved
        self._moved = moved if page.more else 0
        if page.more:
            if before + moved < min(request.limit, SHORT_CHANGES):
                self._count_short(page.entries)
        elif self._owed:
            self._owed.clear()
            if not page.values:  # the others are requested next
                self._rejections += 1
                self._fail_beyond(self._rejections, "rejected changes without the present values of their keys")

    def _check_present(self, request: Request, page: PulledPage, outcome: ReplyOutcome) -> None:
        """Check that the requested values, and the next part of a range, are sent, and have an end.

        A page of changes may have no room for them. Such pages must not be short for ever.
        """
        if page.more:
            return
        part = page.fill
        lacks_values = bool(request.read) and not (outcome.healed or outcome.is_cut)
        lacks_part = part is None and request.fill is not None and not request.keys
        if lacks_values and not page.entries:
            self._unread += 1
            self._fail_beyond(self._unread, "sent no present values of the keys that were requested")
        elif lacks_part and not (page.entries or page.values):
            self._unfilled += 1
            self._fail_beyond(self._unfilled, "sent no part of a range that was requested")
        elif lacks_values or lacks_part or (part is not None and not part.end):
            rows = [*page.entries, *page.values, *(part.entries if part else ())]
            if len(rows) < min(request.limit, SHORT_CHANGES):
                self._count_short(rows)

    def _count_short(self, entries: Iterable[Entry]) -> None:
        size = sum(len(key) + len(value or b"") for key, value in entries)
        self._short_pages = max(0.0, self._short_pages + 1 - size / SHORT_BYTES)
        if self._short_pages >= MAX_SHORT_PAGES:
            raise ProtocolError(
                f"the server sent {MAX_SHORT_PAGES} short pages, each of which announces another one. {_AGAIN}"
            )

    def _fail_beyond(self, count: int, act: str) -> None:
        if count >= MAX_FRUITLESS:
            raise ProtocolError(f"the server {act}, {count} times in one session: {_MEND}. Local changes are kept")
