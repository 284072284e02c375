"""The verbs of a remote server as generators of `effects`, which do no I/O themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count as count_from
from typing import Any
from urllib.parse import quote

import orjson

from ... import _core
from ...backends.base import Entry
from ...engine.codec import Codec, decode_json
from ...engine.groups import check_together
from ...engine.ranges import check_limit, parse_bounds
from ...engine.records import Commit
from ...errors import ConditionError, InvalidKeyError, ProtocolError, TransportError
from ...replication.endpoint import check_wait
from ...replication.manual import attribute, check_cid
from ...replication.messages import Request
from ...replication.wire import request_to_json
from ...types import MISSING, Change, Changes, ClientInfo, KeyRange, Mode
from .body import MAX_PAGE_BYTES, MAX_VALUE_BYTES, NoResponseError
from .calls import EVENT_STREAM_TYPE, NDJSON_TYPE, RouteCall, RouteCaller, transport_error
from .conditions import Tagged
from .effects import CallFlow, Deliver, Receive, Sleep
from .events import Event, EventReader
from .pages import PageProgress
from .responses import (
    parse_backup,
    parse_change,
    parse_changes,
    parse_clients,
    parse_databases,
    parse_entries,
    parse_info,
    parse_object,
)

#: Changes or entries per request: the maximum that a server returns.
PAGE_SIZE = 1000
#: Pages of changes after which a call without a limit asks for the server's CID, and ends there.
_ENDLESS_PAGES = 8
#: Seconds for which a server may take for a backup.
_BACKUP_SECONDS = 3600.0
#: The encoding of a server's level with the default metadata prefix. It rejects invalid keys and
#: values before anything is sent.
_CODEC = Codec(Mode.SERVER, _core.KeySpace("!"))


class RemoteVerbs:
    """The verbs of a remote server.

    Args:
        caller: Performs the calls.
    """

    def __init__(self, caller: RouteCaller) -> None:
        self._caller = caller
        self._call = caller.call

    # --------------------------------------------------------------------------- replication

    def exchange(self, request: Mapping[str, Any], wait: float) -> CallFlow[dict[str, Any]]:
        """See ``Level.exchange``.

        Repeatable: the server recognises a push that it has decided on.
        """
        seconds = check_wait(wait)
        document = yield from self._call(_exchange_call(orjson.dumps(request), seconds))
        return parse_object(document)

    def exchange_encoded(self, request: Request, wait: float) -> CallFlow[object]:
        """Exchange a session's messages, with changes as encoded bytes.

        Returns:
            The server's reply: a `Received`, or a decoded JSON document if the server does not
            support NDJSON.
        """
        call = _exchange_call(request_to_json(request), check_wait(wait), has_rows=True)
        return (yield from self._call(call, accept=NDJSON_TYPE))

    def changes(self, cid: int, limit: int | None, wait: float) -> CallFlow[Changes]:
        """See ``Level.changes``."""
        check_cid(cid)
        check_limit(limit)
        seconds = check_wait(wait)
        changes: list[Change] = []
        progress = PageProgress()
        head: int | None = None
        for pages in count_from(1):
            # The route takes a limit of at least 1; `limit=0` only asks whether there are changes.
            count = PAGE_SIZE if limit is None else max(1, min(PAGE_SIZE, limit - len(changes)))
            query = {"since": cid, "limit": count, **({"wait": seconds} if seconds else {})}
            call = RouteCall("GET", "/changes", query, wait=seconds, max_bytes=MAX_PAGE_BYTES, has_rows=True)
            page = parse_changes((yield from self._call(call, accept=NDJSON_TYPE)), cid, count)
            if limit == 0:
                return Changes(cid, [], bool(page.changes) or page.has_more)
            changes += page.changes
            if not page.has_more or len(changes) == limit:
                return Changes(page.cid, changes, page.has_more)
            progress.record(page.changes, page.cid - cid, count)
            if limit is None and pages == _ENDLESS_PAGES:
                # A log may grow faster than this client reads it: from here on, "all" are those up
                # to now.
                head = (yield from self.info())["cid"]
            cid, seconds = page.cid, 0
            if head is not None and cid >= head:
                return Changes(cid, changes, page.has_more)
        raise AssertionError("unreachable")

    def change(self, cid: int, changes: Any) -> CallFlow[int]:
        """See ``Level.change``.

        Not repeatable: after a lost response, a repeated call would fail with `CIDMismatchError`
        although the changes were applied.
        """
        if type(cid) is not int:
            raise TypeError(f"a CID must be an int, not {cid!r:.80}")
        # Encode as a level does, because ``orjson.dumps`` would convert values that JSON cannot
        # round-trip instead of rejecting them.
        entries = _CODEC.encoder.changes(changes)
        records = b",".join(_core.join_record(key, value) for key, value in entries)
        body = b'{"cid":%d,"changes":[%b]}' % (cid, records)
        document = yield from self._call(RouteCall("POST", "/change", body=body, is_repeatable=False))
        new_cid = parse_object(document).get("cid")
        if type(new_cid) is not int:
            raise ProtocolError(f"the server's response to a change is invalid: {document!r:.80}")
        return new_cid

    def info(self) -> CallFlow[dict[str, Any]]:
        """Return the description of the database: ``server``, ``cid``, ``floor`` and ``mode``."""
        return parse_info((yield from self._call(RouteCall("GET", ""))))

    def backup(self) -> CallFlow[dict[str, Any]]:
        """Back up the database on the server, and return the description of the backup."""
        call = RouteCall("POST", "/backup", wait=_BACKUP_SECONDS, is_repeatable=False)
        return parse_backup((yield from self._call(call)))

    def watch(self, since: int | None) -> CallFlow[None]:
        """See ``Level.watch``. Reconnects after a failure, and resumes after the last change."""
        if since is None:
            since = (yield from self.info())["cid"]
        since = check_cid(since)
        failures = 0
        while True:
            try:
                yield from self._call(RouteCall("GET", "/watch", {"since": since}), accept=EVENT_STREAM_TYPE)
                reader = EventReader()
                commit: Commit | None = None
                while data := (yield Receive()):
                    for event in reader.feed(data):
                        if event.kind:
                            commit = _parse_commit_event(event) or commit
                            continue
                        cid = _parse_event_id(event.id)
                        if cid < since + bool(event.data):
                            raise ProtocolError(f"an event from the server has the CID {cid}, after the CID {since}")
                        if cid > since:
                            since, failures = cid, 0
                        if event.data:
                            change = parse_change(_parse_event_data(event.data))
                            change.cid = cid
                            attribute([change], [] if commit is None else [commit])
                            yield Deliver(change)
                error = TransportError(f"{self._caller.url} ended the stream of changes")
            except NoResponseError as failure:
                error = transport_error(f"{self._caller.url} ended the stream of changes: {failure}", failure)
            failures += 1
            yield Sleep(self._caller.retry_delay(error, failures))

    # ------------------------------------------------------------------------------- entries

    def get(self, key: str, default: Any) -> CallFlow[Any]:
        """Return the value of a key, or ``default`` if the key is missing."""
        call = RouteCall("GET", _entry_path(key), missing_is_ok=True, max_bytes=MAX_VALUE_BYTES)
        value = yield from self._call(call)
        return default if value is MISSING else value

    def get_with_etag(self, key: str, default: Any) -> CallFlow[Tagged]:
        """Return the value of a key with its entity tag."""
        call = RouteCall("GET", _entry_path(key), missing_is_ok=True, max_bytes=MAX_VALUE_BYTES, wants_etag=True)
        value, etag = yield from self._call(call)
        return Tagged(default, None) if value is MISSING else Tagged(value, etag)

    def put(self, key: str, value: Any, headers: Mapping[str, str]) -> CallFlow[None]:
        """Store a value. Not repeatable: a repeated put could overwrite a newer value.

        Args:
            key: The key.
            value: The value.
            headers: The condition, as headers.
        """
        body = _CODEC.encoder.value(value)
        yield from self._write(key, RouteCall("PUT", _entry_path(key), body=body, headers=headers, is_repeatable=False))

    def delete(self, key: str, headers: Mapping[str, str]) -> CallFlow[None]:
        """Delete a key. Not repeatable: a repeated delete could remove a newer value."""
        yield from self._write(key, RouteCall("DELETE", _entry_path(key), headers=headers, is_repeatable=False))

    def _write(self, key: str, call: RouteCall) -> CallFlow[None]:
        """Write a key. If the condition does not hold, read the present value for the error."""
        try:
            yield from self._call(call)
        except ConditionError as error:
            failed = error
        else:
            return
        found = yield from self.get(key, MISSING)
        raise ConditionError(
            f"the key {key!r:.80} has another value on the server than the condition asks for, and nothing was "
            "written: read it again with get_with_etag(), and decide anew",
            key=key,
            found=found,
        ) from failed

    def batch(self, ops: Iterable[Any], together: object) -> CallFlow[None]:
        """Write several operations, all or none. Not repeatable, as `put`."""
        is_whole = check_together(together) is not False
        items = b",".join(map(_operation, _CODEC.encoder.ops(ops)))
        body = b'{"ops":[%b],"together":%b}' % (items, b"true" if is_whole else b"false")
        yield from self._call(RouteCall("POST", "/batch", body=body, is_repeatable=False))

    # -------------------------------------------------------------- life of databases, and clients

    def databases(self) -> CallFlow[dict[str, list[Any]]]:
        """Return the databases of the server, and those that were dropped."""
        return parse_databases((yield from self._call(RouteCall("GET", "", of_server=True))))

    def create(self) -> CallFlow[None]:
        """Create the database. Not repeatable: after a lost response it would exist already."""
        yield from self._call(RouteCall("PUT", "", is_repeatable=False))

    def drop(self, now: object) -> CallFlow[None]:
        """Drop the database. Not repeatable: after a lost response it would be missing."""
        if not isinstance(now, bool):
            raise TypeError(f"now is True or False, not {now!r:.80}")
        yield from self._call(RouteCall("DELETE", "", {"now": "true"} if now else {}, is_repeatable=False))

    def rename(self, to: str) -> CallFlow[None]:
        """Give the database another name. Not repeatable, as `drop`."""
        body = orjson.dumps({"to": check_text("to", to)})
        yield from self._call(RouteCall("POST", "/rename", body=body, is_repeatable=False))

    def undrop(self, to: str | None) -> CallFlow[str]:
        """Restore the dropped database, and return its name. Not repeatable, as `create`."""
        body = orjson.dumps({} if to is None else {"to": check_text("to", to)})
        document = yield from self._call(RouteCall("POST", "/undrop", body=body, is_repeatable=False))
        return str(parse_object(document).get("name", ""))

    def clients(self) -> CallFlow[list[ClientInfo]]:
        """Return the clients of the database."""
        return parse_clients((yield from self._call(RouteCall("GET", "/clients", max_bytes=MAX_PAGE_BYTES))))

    def forget_client(self, client: str) -> CallFlow[bool]:
        """Remove the records of a client. Return False if there are none."""
        path = "/clients/" + quote(check_text("id", client), safe="")
        return (yield from self._call(RouteCall("DELETE", path, missing_is_ok=True))) is not MISSING

    # -------------------------------------------------------------------------------- ranges

    def scan(self, limit: int | None, reverse: object, bounds: KeyRange) -> CallFlow[None]:
        """Deliver the entries of a range in key order, page by page.

        Args:
            limit: Maximum number of entries; ``None`` for no limit.
            reverse: True to begin at the last key.
            bounds: The bounds of the keys.
        """
        parse_bounds(_CODEC, "scan", bounds)
        if not isinstance(reverse, bool):
            raise TypeError(f"reverse is True or False, not {reverse!r:.80}")
        direction = {"reverse": "true"} if reverse else {}
        remaining = check_limit(limit)
        given: KeyRange = {name: bound for name, bound in bounds.items() if bound is not None}  # type: ignore[assignment]
        progress = PageProgress()
        has_more = remaining != 0
        while has_more:
            count = PAGE_SIZE if remaining is None else min(PAGE_SIZE, remaining)
            query = {**given, "limit": count, **direction}
            call = RouteCall("GET", "/entries", query, max_bytes=MAX_PAGE_BYTES, has_rows=True)
            rows, has_more = parse_entries((yield from self._call(call)), given, count, reverse=reverse)
            for row in rows:
                yield Deliver(row)
            if has_more:
                progress.record(rows, len(rows), count)
                if reverse:
                    given.pop("lte", None)
                    given["lt"] = rows[-1][0]
                else:
                    given.pop("gte", None)
                    given["gt"] = rows[-1][0]
                remaining = None if remaining is None else remaining - len(rows)
                has_more = remaining != 0


def check_text(name: str, value: object) -> str:
    """Return an argument that is a text.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r:.80}")
    return value


def _exchange_call(body: bytes, wait: float, *, has_rows: bool = False) -> RouteCall:
    query = {"wait": wait} if wait else {}
    return RouteCall(
        "POST", "/exchange", query, body, wait, max_bytes=MAX_PAGE_BYTES, has_nonce=True, has_rows=has_rows
    )


def _operation(entry: Entry) -> bytes:
    """Return an operation of a batch as JSON."""
    key, value = entry
    if value is None:
        return b'{"type":"del","key":%b}' % _core.encode_json_key(key)
    return b'{"type":"put","key":%b,"value":%b}' % (_core.encode_json_key(key), value)


def _entry_path(key: str) -> str:
    """Return the path of a key's entry.

    Raises:
        InvalidKeyError: The key is invalid, or a URL cannot contain it.
    """
    encoded: bytes = _CODEC.encoder.key(key)
    if key in (".", ".."):
        # URL normalisation removes the segments "." and "..", even if they are percent-encoded.
        raise InvalidKeyError(f"the key {key!r} cannot be part of a URL: read it with query()")
    return "/entries/" + quote(encoded, safe="")


def _parse_event_id(event_id: str) -> int:
    try:
        return check_cid(int(event_id))
    except ValueError as error:
        raise ProtocolError(f"an event from the server has no CID: {event_id!r:.80}") from error


def _parse_commit_event(event: Event) -> Commit | None:
    """Return the commit of an event that announces one; ``None`` for other types of events."""
    if event.kind != "commit":
        return None
    commit = Commit.parse(_parse_event_data(event.data))
    if commit is None:
        raise ProtocolError(f"an event from the server is no commit: {event.data!r:.80}")
    return commit


def _parse_event_data(data: str) -> Any:
    try:
        return decode_json(data.encode())
    except ValueError as error:
        raise ProtocolError(f"an event from the server is not JSON: {data!r:.80}") from error
