"""The server and the clients as a schedule sees them, in the model or in the product."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple, Protocol

#: The content of a write: its author, and the number of the write; ``None`` for a delete.
Content = tuple[str, int] | None
#: The remote side of a conflict if a reset removed the key.
SWEPT: Final = "swept"
#: The base value of a conflict if the client does not know it; the author of a delete, likewise.
UNKNOWN: Final = "unknown"
#: The answers of a merger besides a content to write: the server's value stays, and the lost change
#: is dropped or journaled.
KEEP_SERVER: Final = "keep server"
JOURNAL: Final = "journal"


def weigh(content: Content) -> int:
    """Return the weight of a content. The product pads its values with as many units."""
    return 1 if content is None else 1 + content[1] % 3


class InvariantError(AssertionError):
    """An invariant was violated."""


class Loss(NamedTuple):
    """A record of a client's conflict journal.

    The kind is "conflict" if a pulled change won, and ``cid`` is its CID. Otherwise, the server's
    value of the key at ``cid`` won: the change was "refused" by a rule, "rejected" with its group,
    or the range of its key was "filled" while the log was not pulled for it, or "checked" while it
    was.
    """

    key: str
    local: Content
    remote: Content | str
    cid: int
    kind: str = "conflict"
    base: Content | str = UNKNOWN


#: Settles a loss, in the step of a client that takes a reply: the content to write instead, or an
#: answer.
Merger = Callable[[Loss], "Content | str"]


class FaultyProcess(Protocol):
    def stop_faults(self) -> None:
        """Stop random crashes and one-way syncs, so that everything can converge."""


class ServerUnderTest(FaultyProcess, Protocol):
    """A server, as a schedule uses it."""

    @property
    def head(self) -> int: ...
    def write_together(self, changes: Sequence[tuple[str, Content]]) -> None:
        """Write changes in one commit."""

    def exchange(self, request: Any, principal: str) -> Any:
        """Return the reply to a principal; ``None`` if the server crashes."""

    def refuse_keys(self, keys: frozenset[str]) -> None:
        """Change the rule of the server: it refuses each group with one of these keys."""

    def compact(self) -> None: ...
    def forget_deletes(self, before: int) -> None: ...
    def retain(self, to: int, before: int, forgotten: Sequence[Any]) -> None:
        """Compact the log up to a CID, as retention does.

        Args:
            to: Changes after this CID stay, and supersede none.
            before: Deletes before this CID go: at most ``to + 1``.
            forgotten: The ids of clients whose decisions go, if no copy of their last pushes could
                be judged.
        """

    def restart(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def replace(self) -> None:
        """Replace this server by an empty one with another id."""

    def send_invalid_input(self) -> None:
        """Call with invalid input. It must be refused, and must change nothing."""

    def live(self) -> dict[str, Content]: ...
    def log(self, after: int) -> dict[int, tuple[str, Content]]: ...
    def epoch(self, cid: int) -> Hashable: ...


class ClientUnderTest(FaultyProcess, Protocol):
    """A client, as a schedule uses it.

    Attributes:
        limit: The maximum number of changes, or keys, that the next request asks for.
        merger: Settles the losses that replies bring; ``None`` if all are journaled.
    """

    limit: int
    merger: Merger | None

    @property
    def commits(self) -> int:
        """The number of committed batches; lower after a power cut that lost some."""

    @property
    def cid(self) -> int: ...
    @property
    def resetting(self) -> bool: ...
    @property
    def drained(self) -> bool: ...
    def write(self, key: str, content: Content) -> None: ...
    def write_batch(self, changes: dict[str, Content]) -> None:
        """Write changes that belong together."""

    def follow(self, prefix: str) -> None: ...
    def unfollow(self, prefix: str) -> None: ...
    def followed(self) -> list[str]:
        """The followed prefixes."""

    def complete(self) -> list[str]:
        """The followed prefixes of which the client has all keys."""

    @property
    def is_consistent(self) -> bool:
        """True if all data but the dirty changes is that of the server at the client's CID."""

    def pull_all_manually(self, server: Any) -> None: ...
    def start(self) -> Any:
        """Abandon the outstanding request. Return a new one; ``None`` if there is none to send."""

    def receive(self, reply: Any) -> Any:
        """Apply a reply. Return the next request if the client sends one at once, else ``None``."""

    def rebind(self) -> Any:
        """Return a request that makes this client follow the current server: see `start`."""

    def restore_loss(self, loss: Loss) -> None: ...
    def dismiss_loss(self, loss: Loss) -> None: ...
    def pull_manually(self, server: Any) -> Any:
        """Return a page of a manual pull; ``None`` if the server refuses."""

    def apply_manually(self, page: Any) -> None:
        """Apply the page, unless it is out of date or an exchange is in progress."""

    def push_manually(self, server: Any) -> Any:
        """Push dirty changes manually, and return them; ``None`` if that is not possible."""

    def clean_manually(self, pushed: Any) -> None:
        """Drop the pushed changes from the dirty set."""

    def send_invalid_input(self) -> None:
        """See `ServerUnderTest.send_invalid_input`."""

    def crash(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def live(self) -> dict[str, Content]: ...
    def dirty(self) -> dict[str, Content]: ...
    def base_values(self) -> dict[str, Content]:
        """Return the base values that the client knows; ``None`` if the server had no such key."""

    def journal(self) -> list[Loss]: ...
    def epoch(self) -> Hashable:
        """The last epoch that the client has seen; ``None`` if it has seen none."""
