"""A server for a client that is tested alone: it answers `sync` by a rule instead of by a log."""

from __future__ import annotations

from typing import Any, Final

SERVER_ID: Final = "5" * 32
_EPOCH: Final = "e" * 32
REASON: Final = "not on this day"


class Peer:
    """A server at the CID of its client. It accepts or refuses each group of changes.

    Args:
        data: The client's clean data: a fill returns it, with the changes accepted since.
        accepts_even: True to accept the groups whose first key has an even length; False for the
            others.

    Attributes:
        groups: The changes that were pushed together, in order.
    """

    def __init__(self, data: dict[str, Any], *, accepts_even: bool) -> None:
        self._data = dict(data)
        self._accepts_even = accepts_even
        self.groups: list[list[list[Any]]] = []

    def accepts(self, first_key: str) -> bool:
        """Return True if a group is accepted."""
        return (len(first_key) % 2 == 0) is self._accepts_even

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request: see `Level.exchange`."""
        cid = head = request["cid"]
        reply: dict[str, Any] = {"protocol": 2, "kind": "page", "server": SERVER_ID}
        rejected: list[str] = []
        if request["changes"]:
            for group in _groups_of(request):
                self.groups.append(group)
                if self.accepts(group[0][0]):
                    head += len(group)
                    self._data.update((key, value[0]) for key, *value in group if value)
                    for key, *value in group:
                        if not value:
                            self._data.pop(key, None)
                else:
                    rejected += [change[0] for change in group]
        if rejected:
            values = [[key] for key in rejected]
            reply |= {"refused": [[REASON, rejected]], "values": values, "value_count": len(values)}
        if request["fill"] and not request["changes"]:  # a request that pushes gets no part
            reply |= self._fill(request)
        ack = [cid, head, _EPOCH if head > cid else None] if request["changes"] else None
        epochs = [[_EPOCH, 0]] if head and not request["epochs"] else []
        return reply | {
            "nonce": request["nonce"],
            "base": cid,
            "cid": head,
            "head": head,
            "more": False,
            "epochs": epochs,
            "ack": ack,
            "rejected": rejected,
            "count": 0,
            "page": [],
        }

    def _fill(self, request: dict[str, Any]) -> dict[str, Any]:
        prefix, after = request["fill"]
        complete = tuple(request["complete"])
        entries = [
            [key, self._data[key]]
            for key in sorted(self._data)
            if key.startswith(prefix) and key > after and not key.startswith(complete)
        ]
        to = entries[-1][0] if entries else after
        header = {"prefix": prefix, "after": after, "to": to, "end": True, "count": len(entries)}
        return {"fill": header, "entries": entries}


def _groups_of(request: dict[str, Any]) -> list[list[list[Any]]]:
    """Return the changes of a push, those of each group in one list."""
    found: list[list[list[Any]]] = []
    runs = dict(request.get("groups", ()))
    index = 0
    while index < len(request["changes"]):
        count = runs.get(index, 1)
        found.append(request["changes"][index : index + count])
        index += count
    return found
