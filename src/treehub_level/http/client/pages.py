"""The end of a call that follows pages, against a server that always announces more."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from ...errors import ProtocolError

#: Bytes of rows from which on a page is no sparse one. A server that is short of memory ends a page
#: after 64 KiB, and before that if the next row does not fit.
SPARSE_BYTES = 8 << 10
#: Maximum number of successive sparse pages. A few are valid: the rest of such a page may be
#: changes that the token does not permit to read.
MAX_SPARSE_PAGES = 1000


class PageProgress:
    """Counts sparse pages: those that have few rows and nevertheless announce more.

    Rows that ascend are no sufficient sign of progress, since keys and CIDs can ascend for ever.
    """

    def __init__(self) -> None:
        self._sparse_pages = 0
        self._before = 0

    def record(self, rows: Iterable[Iterable[object]], progress: int, requested: int) -> None:
        """Record a page that announces more.

        Args:
            rows: The rows of the page.
            progress: The number of rows that the page accounts for.
            requested: The number of rows that were requested.

        Raises:
            ProtocolError: There were more than `MAX_SPARSE_PAGES` successive sparse pages.
        """
        # A page of the log ends before changes that belong together, which the next one holds.
        before, self._before = self._before, progress
        if before + progress >= requested or len(orjson.dumps([[*row] for row in rows])) >= SPARSE_BYTES:
            self._sparse_pages = 0
            return
        self._sparse_pages += 1
        if self._sparse_pages > MAX_SPARSE_PAGES:
            raise ProtocolError(
                f"the server sent {self._sparse_pages} nearly empty pages in succession, and announces more: it does "
                "not come to an end"
            )
