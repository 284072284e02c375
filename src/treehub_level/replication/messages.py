"""The messages of one exchange: a request, and in reply a page, keys, a reset or a fork (``protocol.md``).

Whatever comes from the other side is read here, field by field. Both sides keep the same limits.

Inside, changes are bytes: log records as they are stored on the server's side, encoded entries on the client's.
They become objects in ``to_dict`` only, so a transport that can carry bytes need not decode them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final

from .. import _core
from ..backends.base import Entry
from ..engine.modes import Epoch
from ..errors import InvalidKeyError, ProtocolError
from .fields import ID, MAX_CHANGES, NONCE, PROTOCOL, Ack, Fields, shown

#: The most bytes of keys and values in a page or a push.
MAX_BYTES: Final = 8 << 20
#: The most epochs that a request shows: the last ones.
MAX_EPOCHS: Final = 32


@dataclass(slots=True)
class Request:
    """What a client asks. The attributes are the fields of ``protocol.md``; changes are plain objects here.

    Attributes:
        server: The server's id; ``None`` if the client knows none yet.
        client: The client's id.
        cid: The client's CID.
        hi: The highest CID at which a page that it applied was read.
        epochs: The last epochs of the server that it has seen.
        seq: The number of its frozen push.
        nonce: 32 hex digits: those of the push, or fresh ones.
        changes: The frozen push, or none.
        limit: The most changes it wants in a page.
        reset: Whether it is in a reset.
        keys_after: In phase B of a reset, the key after which it wants live keys; ``""`` for the first ones.
        withdraw: Instead of ``changes``: the keys of its frozen push, which it takes back.
    """

    server: str | None
    client: str
    cid: int
    max_head: int
    epochs: list[Epoch]
    seq: int
    nonce: str
    changes: Sequence[Any] = ()
    limit: int = MAX_CHANGES
    reset: bool = False
    keys_after: str | None = None
    withdraw: Sequence[str] = ()

    @property
    def keys(self) -> list[str]:
        """The keys of the push, be it sent or taken back."""
        return [change[0] for change in self.changes] or [*self.withdraw]

    @classmethod
    def from_dict(cls, message: object) -> Request:
        """Read a request. Its changes are only counted: what they may be, the server's key space says.

        Raises:
            ProtocolError: A field is missing, of a wrong type, or out of bounds.
        """
        fields = Fields(message, "request")
        fields.protocol()
        request = cls(
            server=fields.optional_text("server", ID),
            client=fields.text("client", ID),
            cid=fields.cid("cid"),
            max_head=fields.cid("hi"),
            epochs=fields.epochs("epochs", MAX_EPOCHS),
            seq=fields.cid("seq"),
            nonce=fields.text("nonce", NONCE),
            changes=fields.items("changes", MAX_CHANGES),
            limit=fields.integer("limit", 1, MAX_CHANGES),
            reset=fields.flag("reset"),
            keys_after=fields.cursor("keys_after"),
            withdraw=fields.keys("withdraw") if "withdraw" in fields else (),
        )
        if request.changes and request.withdraw:
            raise fields.error("withdraw", "a push is sent or taken back, not both")
        if (request.changes or request.withdraw) and (request.reset or request.keys_after is not None):
            raise fields.error("changes", "during a reset nothing is pushed")
        return request

    def to_dict(self) -> dict[str, Any]:
        """The request, ready to be encoded as JSON."""
        return {
            "protocol": PROTOCOL,
            "server": self.server,
            "client": self.client,
            "cid": self.cid,
            "hi": self.max_head,
            "epochs": [[*epoch] for epoch in self.epochs],
            "seq": self.seq,
            "nonce": self.nonce,
            "changes": list(self.changes),
            "limit": self.limit,
            "reset": self.reset,
            "keys_after": self.keys_after,
            **({"withdraw": [*self.withdraw]} if self.withdraw else {}),
        }


@dataclass(slots=True)
class Reply:
    """What every reply says.

    Attributes:
        server: The server's id.
        nonce: That of the request.
        base: The CID of the request.
    """

    kind: ClassVar[str]

    server: str
    nonce: str
    base: int

    def to_dict(self) -> dict[str, Any]:
        """The reply, ready to be encoded as JSON."""
        return {
            "protocol": PROTOCOL,
            "kind": self.kind,
            "server": self.server,
            "nonce": self.nonce,
            "base": self.base,
        }


@dataclass(slots=True)
class Forked(Reply):
    """Two stores share one client id: the push was not looked at."""

    kind = "forked"


@dataclass(slots=True)
class Reset(Reply):
    """The histories differ, or the log has forgotten deletes that the client needs.

    Attributes:
        common: The last CID at which both agree, at most that of the request.
        ack: What became of the push, if it was decided earlier.
        rejected: Keys of the push that the log does not prove to have been taken.
        head: The server's CID.
    """

    kind = "reset"

    common: int
    ack: Ack | None
    rejected: list[str]
    head: int

    def to_dict(self) -> dict[str, Any]:
        """The reply, ready to be encoded as JSON."""
        return {
            **Reply.to_dict(self),
            "common": self.common,
            "ack": self.ack and [*self.ack],
            "rejected": self.rejected,
            "head": self.head,
        }


@dataclass(slots=True)
class Keys(Reply):
    """Live keys of the server, in order.

    Attributes:
        head: The server's CID.
        epochs: The server's epochs that the client may not know.
        after: The key after which they begin.
        keys: The keys, encoded.
        end: Whether there are no more behind them.
    """

    kind = "keys"

    head: int
    epochs: list[Epoch]
    after: str
    keys: list[bytes]
    end: bool

    def to_dict(self) -> dict[str, Any]:
        """The reply, ready to be encoded as JSON."""
        return {
            **Reply.to_dict(self),
            "head": self.head,
            "epochs": [[*epoch] for epoch in self.epochs],
            "after": self.after,
            "keys": [_core.decode_key(key) for key in self.keys],
            "end": self.end,
        }


@dataclass(slots=True)
class Page(Reply):
    """A part of the log, and what became of the push, but for the changes themselves.

    Attributes:
        cid: The client's CID once it has applied this.
        head: The server's CID.
        more: Whether to ask again: the log goes on behind this page, or the push was not looked at.
        epochs: The server's epochs that the client may not know.
        ack: What became of the push; ``None`` if it was not looked at, or if there was none.
        rejected: Keys of the push that the server refused, or cannot prove to have taken.
    """

    kind = "page"

    cid: int
    head: int
    more: bool
    epochs: list[Epoch]
    ack: Ack | None
    rejected: list[str]

    def header(self, count: int) -> dict[str, Any]:
        """The reply but for its changes, of which there are ``count``."""
        return {
            **Reply.to_dict(self),
            "cid": self.cid,
            "head": self.head,
            "more": self.more,
            "epochs": [[*epoch] for epoch in self.epochs],
            "ack": self.ack and [*self.ack],
            "rejected": self.rejected,
            "count": count,
        }


@dataclass(slots=True)
class PulledPage(Page):
    """A page as a client reads it.

    Attributes:
        cids: The CID of each change, rising.
        entries: The changes, encoded.
    """

    cids: Sequence[int]
    entries: list[Entry]


@dataclass(slots=True)
class LogPage(Page):
    """A page as a server makes it.

    Attributes:
        records: The CID of each change, and its record as it stands in the log.
    """

    records: list[tuple[int, bytes]]

    def to_dict(self) -> dict[str, Any]:
        """The reply, ready to be encoded as JSON."""
        if not self.records:
            return {**self.header(0), "page": []}
        cids, records = zip(*self.records, strict=True)
        page = [*map(list, zip(cids, _core.decode_changes(records), strict=True))]
        return {**self.header(len(page)), "page": page}

    def pulled(self, encoder: _core.Encoder) -> PulledPage:
        """The page as a client in this process reads it.

        Raises:
            ProtocolError: A key or a value that the client may not store.
        """
        return PulledPage(
            self.server,
            self.nonce,
            self.base,
            self.cid,
            self.head,
            self.more,
            self.epochs,
            self.ack,
            self.rejected,
            [cid for cid, _ in self.records],
            encoder.records([record for _, record in self.records]),
        )


#: A reply as a client reads it.
ParsedReply = PulledPage | Keys | Reset | Forked


def read_reply(message: object, encoder: _core.Encoder, *, in_records: bool = False) -> ParsedReply:
    """Read a server's reply, by the rules that a server applies to requests.

    Args:
        message: The reply, decoded from JSON.
        encoder: What makes entries of changes, for the client's key space.
        in_records: Whether the changes of a page are records still, in bytes.

    Raises:
        ProtocolError: A field is missing, of a wrong type, out of bounds, or at odds with another.
    """
    fields = Fields(message, "reply")
    fields.protocol()
    server = fields.text("server", ID)
    nonce = fields.text("nonce", NONCE)
    base = fields.cid("base")
    kind = fields.get("kind")
    if kind == "page":
        return _read_page(fields, server, nonce, base, encoder.records if in_records else encoder.changes)
    if kind == "keys":
        return _read_keys(fields, server, nonce, base, encoder)
    if kind == "reset":
        ack = fields.ack()
        return Reset(
            server, nonce, base, fields.integer("common", 0, base), ack, fields.keys("rejected"), fields.cid("head")
        )
    if kind == "forked":
        return Forked(server, nonce, base)
    raise fields.error("kind", f'"page", "keys", "reset" or "forked" is needed, not {shown(kind)}')


def _read_page(
    fields: Fields, server: str, nonce: str, base: int, encode: Callable[[Sequence[Any]], list[Entry]]
) -> PulledPage:
    head = fields.cid("head")
    to = fields.integer("cid", base, head)
    more = fields.flag("more")
    ack = fields.ack()
    cids, changes = fields.numbered_changes("page", base, to)
    fields.integer("count", len(cids), len(cids))
    if more and to == base and ack is None:
        raise fields.error("more", "it asks to come again, but brings neither changes nor a decision")
    if not more and to != head:
        raise fields.error("more", f"the log goes on to CID {head} behind this page, which ends at CID {to}")
    entries = _bounded(encode(changes))
    epochs, rejected = fields.epochs("epochs"), fields.keys("rejected")
    return PulledPage(server, nonce, base, to, head, more, epochs, ack, rejected, cids, entries)


def _read_keys(fields: Fields, server: str, nonce: str, base: int, encoder: _core.Encoder) -> Keys:
    after = fields.cursor("after")
    if after is None:
        raise fields.error("after", "it is null, and keys come after some key")
    texts = fields.keys("keys")
    last = after.encode()
    try:
        keys = [encoder.key(key) for key in texts]
    except InvalidKeyError as error:
        raise fields.error("keys", str(error)) from error
    for key in keys:
        if key <= last:
            raise fields.error("keys", f"they rise from {shown(after)} on; {shown(key)} does not")
        last = key
    end = fields.flag("end")
    if not keys and not end:
        raise fields.error("end", "there are no keys here, and yet it is not the end")
    return Keys(server, nonce, base, fields.cid("head"), fields.epochs("epochs"), after, keys, end)


def encode_changes(changes: Sequence[Any], encoder: _core.Encoder) -> list[Entry]:
    """The entries of a page or a push.

    Raises:
        ProtocolError: A change that is none, or more bytes than fit.
    """
    return _bounded(encoder.changes(changes))


def _bounded(entries: list[Entry]) -> list[Entry]:
    size = sum(map(len, filter(None, chain.from_iterable(entries))))
    if size > MAX_BYTES:
        raise ProtocolError(f"changes: {size} bytes of keys and values, and at most {MAX_BYTES} are allowed")
    return entries
