"""The message vectors that `treehub_level.testing.exchange` ships, and a command that writes them.

`PYTHONPATH=tests python tests/golden/message_vectors.py` writes the file. Messages that must be
accepted are golden: their texts change with the version of the protocol only, and never to make a
failing test pass. A refused message is an accepted one with some fields replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
from golden.golden_messages import NONCE, REPLIES, REQUEST, SERVER, WITHDRAWAL, reply_to_json, reply_to_ndjson

import treehub_level.testing.exchange.vectors as shipped
from treehub_level.replication.wire import request_to_json

FILE = Path(shipped.__file__).with_name(shipped.FILE)
ABOUT = "Messages of the exchange, see docs/testing.md. Written by tests/golden/message_vectors.py."
CLIENT, EPOCH, ID = "c" * 32, "a" * 32, "e" * 32
PUSH_NONCE = "d" * 32

#: Stands for a field that is left out.
ABSENT = object()
Fields = dict[str, Any]

# ----------------------------------------------------------------------------------------- requests

#: A request with a push, of a new client.
NEW: Fields = {
    "protocol": 2,
    "server": None,
    "client": CLIENT,
    "cid": 0,
    "hi": 0,
    "epochs": [],
    "nonce": NONCE,
    "seq": 1,
    "push": PUSH_NONCE,
    "changes": [["b", 1], ["c"]],
    "limit": 1000,
    "complete": [""],
    "partial": [],
    "fill": None,
}
_AT_2: Fields = {
    **NEW,
    "server": SERVER,
    "cid": 2,
    "hi": 2,
    "epochs": [[EPOCH, 0]],
    "seq": 0,
    "push": None,
    "changes": [],
}
_PULL: Fields = {"push": None, "changes": []}
#: The requests that the replies answer.
REQUESTS: dict[str, Fields] = {
    "pull": _AT_2,
    "push": {**_AT_2, "seq": 1, "push": PUSH_NONCE, "changes": [["k", 1], ["é", {"x": [1]}], ["gone"]]},
    "fill": {**_AT_2, "complete": [], "fill": ["", "f/1"]},
    "fill of a range": {**_AT_2, "complete": ["a/"], "fill": ["f/", "f/1"]},
    "all fields": orjson.loads(request_to_json(REQUEST)),
}

#: Refused requests, by the section of `docs/protocol.md` with the rule: the name, the fields that
#: differ from `NEW`, and the rule.
REFUSED_REQUESTS: dict[str, list[tuple[str, Fields, str]]] = {
    "Versions": [
        ("an earlier version", {"protocol": 1}, "protocol is 2"),
        ("a later version", {"protocol": 3}, "protocol is 2"),
        ("a version that is text", {"protocol": "2"}, "protocol is an integer"),
        ("a version that is a bool", {"protocol": True}, "protocol is an integer"),
    ],
    "Request": [
        ("a server that is no id", {"server": "x y"}, "server is an id, or null"),
        ("no client", {"client": None}, "client is an id"),
        ("a client with a slash", {"client": "a/b"}, "an id has 1 to 64 letters, digits, - and _"),
        ("a CID that is null", {"cid": None}, "cid is an integer"),
        ("a CID that is a fraction", {"cid": 1.5}, "cid is an integer"),
        ("a CID that is a bool", {"cid": True}, "cid is an integer"),
        ("epochs that are no array", {"epochs": {}}, "epochs is an array"),
        ("an epoch that lacks its start", {"epochs": [[ID]]}, "an epoch is [id, start]"),
        ("an epoch that starts at a bool", {"epochs": [[ID, True]]}, "the start of an epoch is a CID"),
        ("epochs that do not rise", {"epochs": [[ID, 1], ["f" * 32, 1]]}, "the starts of the epochs rise"),
        ("no nonce", {"nonce": None}, "nonce is 32 hex digits"),
        ("a nonce that is too short", {"nonce": "0" * 31}, "nonce is 32 hex digits"),
        ("a nonce in capitals", {"nonce": "A" * 32}, "nonce is 32 hex digits, in small letters"),
        ("a number of the push that is text", {"seq": "1"}, "seq is an integer"),
        ("a push without a nonce of its own", {"push": None}, "a push has a nonce of its own"),
        ("a nonce without a push", {"changes": []}, "push is null without a push"),
        ("changes that are no array", {"changes": {}}, "changes is an array"),
        ("a change that is no array", {"changes": ["b"]}, 'a change is ["key", value] or ["key"]'),
        ("a change of three items", {"changes": [["b", 1, 2]]}, 'a change is ["key", value] or ["key"]'),
        ("a change of no key", {"changes": [[1, 1]]}, "a key is text"),
        ("groups that are no array", {"groups": {}}, "groups is an array"),
        ("a group of one", {"groups": [[0, 1]]}, "a group has two changes or more"),
        ("a group beyond the changes", {"groups": [[1, 2]]}, "a group lies within changes"),
        ("groups that overlap", {"groups": [[0, 2], [1, 2]]}, "groups rise and do not overlap"),
        ("a group of a bool", {"groups": [[False, 2]]}, "a group is [first, count]"),
        ("a push and a withdrawal", {"withdraw": ["b"]}, "a push is sent or withdrawn, not both"),
        ("a withdrawal that is no array", {"changes": [], "withdraw": "b"}, "withdraw is an array of keys"),
        ("a withdrawal of no key", {"changes": [], "withdraw": [1]}, "withdraw is an array of keys"),
        ("prefixes that are no array", {"complete": "ab"}, "complete is an array of prefixes"),
        ("a prefix that is no text", {"complete": [1]}, "a prefix is text"),
        ("a fill that is no pair", {"fill": ["a"]}, "fill is [prefix, after] or null"),
        ("a fill after a key outside", {"fill": ["a", "b"]}, "after is empty, or a key of the range"),
        ("keys to read that are no array", {"read": "ab"}, "read is an array of keys"),
        *(
            (f"without {name}", {name: ABSENT}, f"{name} is required")
            for name in ("protocol", "server", "cid", "hi", "epochs", "seq", "push", "changes")
        ),
    ],
    "Limits": [
        ("a client that is too long", {"client": "f" * 65}, "an id has 1 to 64 letters, digits, - and _"),
        ("a CID below 0", {"cid": -1}, "cid is from 0 to 2^53 - 1"),
        ("a CID that is too large", {"cid": 2**53}, "cid is from 0 to 2^53 - 1"),
        ("a highest head below 0", {"hi": -1}, "hi is from 0 to 2^53 - 1"),
        ("too many epochs", {"epochs": [[f"{n:032x}", n] for n in range(33)]}, "there are at most 32 epochs"),
        ("a change of the empty key", {"changes": [["", 1]]}, "a key has 1 to 1024 bytes of UTF-8"),
        ("a change of a key that is too long", {"changes": [["k" * 1025, 1]]}, "a key has 1 to 1024 bytes of UTF-8"),
        ("a change of the CID", {"changes": [["!", 9]]}, "a key is not below the successor of the prefix"),
        ("a change of metadata", {"changes": [["!1", ["a", 9]]]}, "a key is not below the successor of the prefix"),
        ("a key twice", {"changes": [["k", 1], ["k"]]}, "a push holds no key twice"),
        ("no limit", {"limit": None}, "limit is from 1 to 65,536"),
        ("a limit of 0", {"limit": 0}, "limit is from 1 to 65,536"),
        ("a limit that is too large", {"limit": 65_537}, "limit is from 1 to 65,536"),
        (
            "a prefix with which no key can begin",
            {"complete": ["!"]},
            "a key that users may write can begin with a prefix",
        ),
        ("a prefix that is too long", {"partial": ["k" * 1025]}, "a key that users may write can begin with a prefix"),
        ("too many prefixes", {"partial": [f"{n}/" for n in range(256)]}, "there are at most 256 prefixes"),
        (
            "prefixes of too many bytes",
            {"partial": [f"{n:02}".ljust(1000, "a") for n in range(17)]},
            "prefixes have 16 KiB",
        ),
        ("a fill of metadata", {"fill": ["!", ""]}, "a key that users may write can begin with a prefix"),
        ("a key to read that is none", {"read": [""]}, "a key has 1 to 1024 bytes of UTF-8"),
        ("too many keys to read", {"read": [f"{n}" for n in range(1001)]}, "read has at most 1000 keys"),
    ],
}


def _text(fields: Fields) -> str:
    """A message, as this library writes it."""
    present = {name: value for name, value in fields.items() if value is not ABSENT}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":"))


def _around(base: Fields, name: str, *pieces: Any) -> list[Any]:
    """A message with pieces of text in the place of a field."""
    before, after = _text({**base, name: "HERE"}).split('"HERE"')
    return [before, *pieces, after]


_THIRD = ["x", 3 << 20]
#: Refused requests that are no small JSON objects, by section: the name, the text, and the rule.
REFUSED_TEXTS: dict[str, list[tuple[str, Any, str]]] = {
    "Encoding": [
        ("nothing", "", "a message is a JSON object"),
        ("no JSON", "{", "a message is a JSON object"),
        ("an array", "[]", "a message is a JSON object"),
        ("null", "null", "a message is a JSON object"),
        ("bytes that are no UTF-8", _around(NEW, "changes", '[["', {"hex": "ff"}, '",1]]'), "a message is UTF-8"),
        ("a number that is none", _around(NEW, "changes", '[["b",NaN]]'), "a message is JSON"),
    ],
    "Limits": [
        ("a name twice", _text(NEW)[:-1] + ',"cid":0}', "no object in a message names a member twice"),
        (
            "a name twice in a value",
            _around(NEW, "changes", '[["b",{"x":1,"x":2}]]'),
            "no object in a message names a member twice",
        ),
        ("half of a surrogate pair", _around(NEW, "changes", '[["\\ud800",1]]'), "a key is valid Unicode"),
        ("half of a surrogate pair in a value", _around(NEW, "changes", '[["b","\\ud800"]]'), "text is valid Unicode"),
        ("an integer beyond 64 bits", _around(NEW, "changes", '[["b",18446744073709551616]]'), "integers have 64 bits"),
        (
            "a value nested 65 deep",
            _around(NEW, "changes", '[["b",', ["[", 65], ["]", 65], "]]"),
            "a value is nested at most 64 deep",
        ),
        (
            "a value of more than 4 MiB",
            _around(NEW, "changes", '[["b","', ["x", 4 << 20], '"]]'),
            "a value has at most 4 MiB of JSON",
        ),
        (
            "a push of more than 8 MiB",
            _around(NEW, "changes", '[["a","', _THIRD, '"],["b","', _THIRD, '"],["c","', _THIRD, '"]]'),
            "a push has at most 8 MiB",
        ),
        (
            "a push of more than 16,384 changes",
            _around(NEW, "changes", "[", ['["b"],', 16_384], '["b"]]'),
            "a push has at most 16,384 changes",
        ),
    ],
}

#: Accepted requests that no golden message shows: the name, and the fields that differ from `NEW`.
ACCEPTED_REQUESTS: list[tuple[str, Fields]] = [
    ("a push of a new client", {}),
    ("a pull without the optional fields", dict.fromkeys(("complete", "partial", "fill"), ABSENT) | _PULL),
    ("a field of a later version", {"later": {"x": [1]}, **_PULL}),
    (
        "values of all kinds",
        {"changes": [["a", None], ["b", [True, -0.5, 2**53 + 1, 2**64 - 1]], ["c", {"é": "\u2028"}]]},
    ),
    ("the lowest and the longest key", {"changes": [['"', 1], ["k" * 1024, 1], ["\U0010ffff", 1]]}),
    ("all limits of the prefixes", {"complete": [f"{n:03}/" for n in range(255)], "partial": ["a" * 1024], **_PULL}),
    ("a fill of all keys", {"complete": [], "fill": ["", ""], **_PULL}),
    ("keys to read", {"read": ["a", "é"], **_PULL}),
    ("the largest numbers", {"seq": 2**53 - 1, "limit": 65_536, **_PULL}),
]

# ------------------------------------------------------------------------------------------ replies

_COMMON: Fields = {"protocol": 2, "kind": "page", "server": SERVER, "nonce": NONCE, "base": 2}
_NOTHING: Fields = {"more": False, "epochs": [], "ack": None, "rejected": [], "count": 0, "page": []}
#: The replies that refused ones are made of, by the request that they answer.
PAGES: dict[str, Fields] = {
    "pull": {**_COMMON, "cid": 4, "head": 4, **_NOTHING, "count": 2, "page": [[3, ["a", 1]], [4, ["b"]]]},
    "push": {**_COMMON, "cid": 5, "head": 5, **_NOTHING, "ack": [2, 5, EPOCH]},
    "fill": {
        **_COMMON,
        "cid": 2,
        "head": 2,
        **_NOTHING,
        "fill": {"prefix": "", "after": "f/1", "to": "f/3", "end": False, "count": 2},
        "entries": [["f/2", 2], ["f/3", 3]],
    },
}


def _part(**fields: Any) -> Fields:
    """The fields of a reply with another part of the range."""
    return {"fill": {**PAGES["fill"]["fill"], **fields}}


def _values(*values: Any) -> Fields:
    return {"values": [*values], "value_count": len(values)}


#: Refused replies, by the request that they answer: the name, the fields that differ from `PAGES`,
#: and the rule.
REFUSED_REPLIES: dict[str, list[tuple[str, Fields, str]]] = {
    "pull": [
        ("an earlier version", {"protocol": 1}, "protocol is 2"),
        ("a later version", {"protocol": 3}, "protocol is 2"),
        ("an unknown kind", {"kind": "poem"}, 'kind is "page", "reset" or "forked"'),
        ("no kind", {"kind": None}, 'kind is "page", "reset" or "forked"'),
        ("no server", {"server": None}, "server is an id"),
        ("another nonce", {"nonce": "1" * 32}, "a reply has the nonce of its request"),
        ("another base", {"base": 1}, "a reply has the CID of its request"),
        ("a base that is a bool", {"base": True}, "base is the CID of the request"),
        ("a CID beyond the head", {"cid": 5}, "cid is at most head"),
        ("a CID below the base", {"cid": 1}, "cid is at least base"),
        ("a CID that is text", {"cid": "4"}, "cid is an integer"),
        ("a head that is a fraction", {"head": 4.5}, "head is an integer"),
        ("an end below the head", {"head": 5}, "a page without more ends at the head"),
        (
            "more of nothing",
            {"cid": 2, "head": 5, "more": True, "count": 0, "page": []},
            "with more, cid is above base",
        ),
        ("more that is a number", {"more": 0}, "more is true or false"),
        ("another number of changes", {"count": 1}, "count is the number of changes in page"),
        ("a page that is no array", {"page": {}}, "page is an array"),
        ("a row that is no pair", {"page": [[3, ["a", 1]], 4]}, "a row is [CID, change]"),
        ("a row that is too long", {"page": [[3, ["a", 1]], [4, ["b"], 4]]}, "a row is [CID, change]"),
        ("a CID of a row that is text", {"page": [[3, ["a", 1]], ["4", ["b"]]]}, "the CID of a row is an integer"),
        ("CIDs that fall", {"page": [[4, ["a", 1]], [3, ["b"]]]}, "the CIDs of the rows rise"),
        ("a CID twice", {"page": [[3, ["a", 1]], [3, ["b"]]]}, "the CIDs of the rows rise"),
        ("a CID of a row that is not after the base", {"page": [[2, ["a", 1]], [4, ["b"]]]}, "rows are after base"),
        ("a CID of a row after the page", {"page": [[3, ["a", 1]], [5, ["b"]]]}, "rows are not after cid"),
        ("a change that is text", {"page": [[3, ["a", 1]], [4, "bc"]]}, "a change is [key, value] or [key]"),
        (
            "a change of the CID",
            {"page": [[3, ["!", 7]], [4, ["b"]]]},
            "a key is not below the successor of the prefix",
        ),
        (
            "a change of a key that is too long",
            {"page": [[3, ["k" * 1025]], [4, ["b"]]]},
            "a key has at most 1024 bytes",
        ),
        ("an epoch that starts at text", {"epochs": [[ID, "0"]]}, "an epoch is [id, start]"),
        ("epochs that do not rise", {"epochs": [[ID, 1], ["f" * 32, 1]]}, "the starts of the epochs rise"),
        ("a decision of two items", {"ack": [2, 3]}, "ack is [before, after, epoch] or null"),
        (
            "a decision on a push that was not sent",
            {"ack": [3, 4, EPOCH]},
            "a reply decides on the push of its request",
        ),
        ("a rejection of a key that was not sent", {"rejected": ["a"]}, "rejected has keys of the push"),
        ("a rejection of no key", {"rejected": [1]}, "rejected has keys of the push"),
        ("a value that was not requested", _values(["a", 1]), "values has keys that were read or rejected"),
        ("values without their number", {"values": [["a", 1]]}, "value_count is the number of values"),
        ("values of another number", {"values": [["a", 1]], "value_count": 2}, "value_count is the number of values"),
        ("values that are no array", {"values": {}}, "values is an array"),
        ("entries without their range", {"entries": [["a", 1]]}, "entries come with fill"),
        (
            "a part that was not requested",
            {"fill": {"prefix": "", "after": "", "to": "a", "end": True, "count": 1}, "entries": [["a", 1]]},
            "a part is the next one of the requested range",
        ),
        ("advice that is a number", {"refill": 1}, "refill is true or absent"),
        ("commits beyond the page", {"commits": [[5, 6, None, None, None, []]]}, "commits are those of the page"),
        ("commits that fall", {"commits": [[4, 4, *[None] * 3, []], [3, 3, *[None] * 3, []]]}, "the commits rise"),
        ("a fork without a push", {"kind": "forked"}, "forked answers a push"),
        ("a reset above the base", {"kind": "reset", "common": 3}, "common is at most the CID of the request"),
        *((f"without {name}", {name: ABSENT}, f"{name} is required") for name in ("server", "nonce", "base", "cid")),
        *((f"without {name}", {name: ABSENT}, f"{name} is required") for name in ("head", "more", "epochs", "page")),
    ],
    "push": [
        ("no decision at the end", {"ack": None}, "without more, a reply decides on the push"),
        ("more accepted than sent", {"ack": [1, 5, EPOCH]}, "at most as many changes are accepted as were sent"),
        ("a change without a decision", {"ack": [3, 5, EPOCH]}, "each change of the push is accepted or rejected"),
        ("a decision that falls", {"ack": [5, 2, EPOCH]}, "before is at most after"),
        ("acceptance in no epoch", {"ack": [2, 5, None]}, "accepted changes have an epoch"),
        (
            "nothing in an epoch",
            {"ack": [5, 5, EPOCH], "rejected": ["k", "é", "gone"]},
            "without an accepted change epoch is null",
        ),
        ("a rejection of another key", {"rejected": ["other"]}, "rejected has keys of the push"),
        ("a refusal of a key that is not rejected", {"refused": [["no", ["k"]]]}, "refused has rejected keys"),
        (
            "a refusal without a reason",
            {"rejected": ["k"], "refused": [["", ["k"]]]},
            "a reason has 1 to 500 characters",
        ),
        (
            "a reason that is too long",
            {"rejected": ["k"], "refused": [["x" * 501, ["k"]]]},
            "a reason has 1 to 500 characters",
        ),
        ("a refusal that is no pair", {"rejected": ["k"], "refused": ["k"]}, "a refusal is [reason, keys]"),
        ("a value of another key", _values(["other", 1]), "values has keys that were read or rejected"),
        ("a value of metadata", _values(["!1", 1]), "values has keys that were read or rejected"),
        ("a value twice", {"rejected": ["k"], **_values(["k", 1], ["k"])}, "a key has one value"),
        ("a part beside a push", {**_part(after=""), "entries": [["f/2", 2], ["f/3", 3]]}, "a push gets no part"),
    ],
    "fill": [
        ("a part of another range", _part(prefix="f/"), "a part is the next one of the requested range"),
        ("a part that is null", {"fill": None}, "fill is an object, or absent"),
        ("a part that ends in metadata", {**_part(to="!"), "entries": []}, "to is the last key of the part"),
        ("a part after another key", _part(after="f/0"), "a part is the next one of the requested range"),
        (
            "a part that ends before it begins",
            {**_part(to="f/0", count=0, end=True), "entries": []},
            "to is not before after",
        ),
        (
            "a part of nothing",
            {**_part(to="f/1", count=0), "entries": []},
            "a part that is not the last ends after it begins",
        ),
        ("another number of entries", _part(count=1), "count is the number of entries"),
        ("a part without entries", {"entries": ABSENT}, "fill comes with entries"),
        ("an end that is a number", _part(end=1), "end is true or false"),
        ("an entry that is a delete", {"entries": [["f/2"], ["f/3", 3]]}, "an entry is [key, value]"),
        ("entries that fall", {"entries": [["f/3", 3], ["f/2", 2]]}, "the keys of the entries rise"),
        ("an entry twice", {"entries": [["f/3", 3], ["f/3", 3]]}, "the keys of the entries rise"),
        ("an entry before the part", {"entries": [["f/1", 1], ["f/3", 3]]}, "the entries are after the key after"),
        ("an entry after the part", _part(to="f/2"), "the entries are not after to"),
        ("a part before the end", {"cid": 3, "head": 4, "more": True}, "a part comes with the head"),
    ],
}

_HEADER = _text({name: field for name, field in PAGES["pull"].items() if name != "page"})
_ROWS = '[3,["a",1]]\n[4,["b"]]\n'
#: Refused replies in NDJSON to the request "pull": the name, the text, and the rule.
REFUSED_LINES: list[tuple[str, str, str]] = [
    ("fewer lines than announced", f'{_HEADER}\n[3,["a",1]]\n', "count is the number of lines"),
    ("more lines than announced", f'{_HEADER}\n{_ROWS}["c",1]\n', "count is the number of lines"),
    ("a line that was cut", f"{_HEADER}\n{_ROWS[:-3]}", "each line is JSON"),
    ("a line that is no row", f'{_HEADER}\n[3,["a",1]]\n"b"\n', "a row is [CID, change]"),
    ("no first line", f"\n{_ROWS}", "the first line is the reply without its rows"),
    (
        "lines after a reply without rows",
        f"{_text({**_COMMON, 'kind': 'reset', 'common': 1, 'ack': None, 'rejected': [], 'head': 4})}\n{_ROWS}",
        "only a page has rows",
    ),
]


# ----------------------------------------------------------------------------------------- the file


def vectors() -> dict[str, Any]:
    """The content of the file."""
    return {
        "about": ABOUT,
        "protocol": 2,
        "requests": REQUESTS,
        "accepted": {"requests": _accepted_requests(), "replies": _accepted_replies()},
        "refused": {"requests": _refused_requests(), "replies": _refused_replies()},
    }


def _accepted_requests() -> list[Fields]:
    golden = {"all fields": request_to_json(REQUEST), "a withdrawal": request_to_json(WITHDRAWAL)}
    texts = {name: text.decode() for name, text in golden.items()}
    texts |= {name: _text({**NEW, **fields}) for name, fields in ACCEPTED_REQUESTS}
    return [{"name": name, "text": text, "means": _request_means(text)} for name, text in texts.items()]


def _request_means(text: str) -> Fields:
    """The fields of a request and the defaults of absent ones: the message itself says the rest."""
    fields = {
        "groups": [],
        "withdraw": [],
        "read": [],
        "complete": [""],
        "partial": [],
        "fill": None,
        **json.loads(text),
    }
    del fields["protocol"]
    return {name: value for name, value in fields.items() if name != "later"}


#: The request that each golden reply answers.
ANSWERED = {
    "page": "all fields",
    "empty page": "pull",
    "decision": "push",
    "fill": "fill of a range",
    "reset": "push",
    "forked": "push",
}


def _accepted_replies() -> list[Fields]:
    found = []
    for name, request in ANSWERED.items():
        message = json.loads(reply_to_json(REPLIES[name]))
        for encoding, encode in (("json", reply_to_json), ("ndjson", reply_to_ndjson)):
            text, means = encode(REPLIES[name]).decode(), _reply_means(message)
            found.append({"name": name, "request": request, "encoding": encoding, "text": text, "means": means})
    for request, page in PAGES.items():
        found.append({"name": f"a reply to a {request}", "request": request, "encoding": "json"})
        found[-1] |= {"text": _text(page), "means": _reply_means(page)}
    return found


def _reply_means(message: Fields) -> Fields:
    """The fields of a reply, without the numbers of rows, and the defaults of absent ones."""
    optional: Fields = {}
    if message["kind"] == "page":
        optional = {"refused": [], "commits": [], "values": [], "fill": None, "entries": [], "refill": False}
    fields = {**optional, **message}
    if fields.get("fill"):
        fields["fill"] = {name: value for name, value in fields["fill"].items() if name != "count"}
    return {name: value for name, value in fields.items() if name not in ("protocol", "count", "value_count")}


def _refused_requests() -> list[Fields]:
    found = []
    for section, items in REFUSED_REQUESTS.items():
        for name, fields, rule in items:
            found.append({"name": name, "text": _text({**NEW, **fields}), "rule": rule, "section": section})
    for section, texts in REFUSED_TEXTS.items():
        for name, text, rule in texts:
            found.append({"name": name, "text": text, "rule": rule, "section": section})
    return found


def _refused_replies() -> list[Fields]:
    found = []
    for request, items in REFUSED_REPLIES.items():
        for name, fields, rule in items:
            vector = {"name": name, "request": request, "encoding": "json", "text": _text({**PAGES[request], **fields})}
            found.append({**vector, "rule": rule, "section": "Reply"})
    for name, text, rule in REFUSED_LINES:
        vector = {"name": name, "request": "pull", "encoding": "ndjson", "text": text}
        found.append({**vector, "rule": rule, "section": "Encoding"})
    return found


def file_text() -> str:
    """The text of the file."""
    return json.dumps(vectors(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(file_text(), encoding="utf-8")
