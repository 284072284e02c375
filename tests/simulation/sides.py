"""The two sides of a schedule, as it sees them: a server and clients, be they the model's or the product's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, NamedTuple, Protocol

#: What was written: by whom, and the how-manyth of its writes; ``None`` for a delete.
Content = tuple[str, int] | None
#: The other side of a journaled change that a reset removed: nothing won over it, its key was gone.
SWEPT: Final = "swept"


def weigh(content: Content) -> int:
    """A weight for each content: the same in the model and, in units of padding, in the product."""
    return 1 if content is None else 1 + content[1] % 3


class InvariantError(AssertionError):
    """Something that must hold did not."""


class Loss(NamedTuple):
    """One record of a client's conflict journal."""

    key: str
    local: Content
    remote: Content | str
    cid: int


class FaultyProcess(Protocol):
    def stop_faults(self) -> None:
        """Nothing of its own happens any more: it does not die over a step, and synchronises both ways."""


class ServerUnderTest(FaultyProcess, Protocol):
    """What a schedule does to a server, and sees of it."""

    @property
    def head(self) -> int: ...
    def write(self, key: str, content: Content) -> None: ...
    def exchange(self, request: Any) -> Any:
        """Answer; ``None`` if the server dies over it."""

    def compact(self) -> None: ...
    def forget_deletes(self, before: int) -> None: ...
    def restart(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def replace(self) -> None:
        """Become another server, an empty one."""

    def send_invalid_input(self) -> None:
        """Somebody asks what must be refused, and must leave everything as it was."""

    def live(self) -> dict[str, Content]: ...
    def log(self, after: int) -> dict[int, tuple[str, Content]]: ...
    def epoch(self, cid: int) -> Hashable: ...


class ClientUnderTest(FaultyProcess, Protocol):
    """What a schedule does to a client, and sees of it."""

    @property
    def commits(self) -> int:
        """How many batches it has committed; lower after a power cut that took some of them."""

    @property
    def cid(self) -> int: ...
    @property
    def resetting(self) -> bool: ...
    @property
    def drained(self) -> bool: ...
    def write(self, key: str, content: Content) -> None: ...
    def pull_all_manually(self, server: Any) -> None: ...
    def start(self) -> Any:
        """Give up the outstanding request, if any, and make a new one; ``None`` if it comes to nothing."""

    def receive(self, reply: Any) -> Any:
        """Take a reply. Returns the next request if the client sends one at once, else ``None``."""

    def rebind(self) -> Any:
        """Ask whoever is the server to be its client from now on: a request, see `start`."""

    def restore_loss(self, loss: Loss) -> None: ...
    def dismiss_loss(self, loss: Loss) -> None: ...
    def pull_manually(self, server: Any) -> Any:
        """The first half of the seed's pull: a page. ``None`` where that cannot be."""

    def apply_manually(self, page: Any) -> None:
        """The second half, unless the page has come too late, or `start` has begun what must be ended first."""

    def push_manually(self, server: Any) -> Any:
        """The first half of the seed's push: what was pushed. ``None`` where nothing is, or can be."""

    def clean_manually(self, pushed: Any) -> None:
        """The second half."""

    def send_invalid_input(self) -> None:
        """See `ServerUnderTest.intrude`."""

    def crash(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def live(self) -> dict[str, Content]: ...
    def dirty(self) -> dict[str, Content]: ...
    def journal(self) -> list[Loss]: ...
    def epoch(self) -> Hashable:
        """The last epoch that it knows of; ``None`` if it knows of none."""
