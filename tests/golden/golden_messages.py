"""Messages of the exchange, and a command that writes them as golden files beside this one.

`python tests/golden/golden_messages.py` writes the files. Run it only for a new version of the
protocol, and never to make a failing test pass.
"""

from __future__ import annotations

from pathlib import Path

from treehub_level.engine.records import Commit, Epoch
from treehub_level.replication.fields import Ack, Fill, Refusal
from treehub_level.replication.manual import Part
from treehub_level.replication.messages import FillPart, Forked, LogPage, Reply, Request, Reset
from treehub_level.replication.wire import part_pieces, reply_pieces

FOLDER = Path(__file__).parent
SERVER = "5" * 32
NONCE = "0" * 32
ADDRESS = SERVER, NONCE, 2
EPOCHS = [Epoch("a" * 32, 0), Epoch("b" * 32, 4)]
RECORDS = [(3, '["é",{"x":[1,2.5,null],"y":"\\n"}]'.encode()), (5, b'["gone"]'), (8, b'["n",12345678901234567890]')]
COMMITS = [
    Commit(3, 4, "c" * 32, "alice", 1_700_000_000_123, ()),
    Commit(5, 8, None, None, None, ((5, 6), (7, 8))),
]

REQUEST = Request(
    SERVER,
    "c" * 32,
    2,
    9,
    EPOCHS,
    NONCE,
    seq=1,
    push_nonce="d" * 32,
    changes=[["é", {"x": [1]}], ["gone"]],
    groups=[(0, 2)],
    limit=1000,
    complete=["a/"],
    partial=["é", "n"],
    fill=Fill("é", "é/7"),
    read=["lost"],
)
WITHDRAWAL = Request(
    None, "c" * 32, 0, 0, [], NONCE, seq=1, push_nonce="d" * 32, withdraw=["é", "gone"], complete=[], partial=[]
)
REPLIES: dict[str, Reply] = {
    "page": LogPage(*ADDRESS, 8, 9, True, EPOCHS, Ack(8, 9, "b" * 32), ["é"], COMMITS, RECORDS, refill=True),
    "empty page": LogPage(*ADDRESS, 2, 2, False, [], None, [], [], []),
    "decision": LogPage(
        *ADDRESS,
        9,
        9,
        False,
        [],
        Ack(9, 9, None),
        ["k", "é", "gone"],
        COMMITS[:1],
        RECORDS[:1],
        refused=[Refusal("not on Sundays 😀", ["k", "é"])],
        values=[(b"k", b'{"x":[1]}'), ("é".encode(), None), (b"gone", b"null")],
    ),
    "fill": LogPage(
        *ADDRESS,
        8,
        8,
        False,
        [],
        None,
        [],
        [],
        RECORDS,
        fill=FillPart("f/", "f/1", "f/3", False, [(b"f/2", b'{"x":[1,2.5]}'), (b"f/3", b"2")]),
    ),
    "end of a fill": LogPage(*ADDRESS, 2, 2, False, [], None, [], [], [], fill=FillPart("f/", "", "", True, [])),
    "reset": Reset(*ADDRESS, 1, None, ["k"], 9),
    "forked": Forked(*ADDRESS),
}
PART = Part(8, RECORDS, COMMITS, has_more=True)


def reply_to_json(reply: Reply) -> bytes:
    """Return a reply as one JSON document."""
    return b"".join(reply_pieces(reply, in_lines=False))


def reply_to_ndjson(reply: Reply) -> bytes:
    """Return a reply as lines of JSON."""
    return b"".join(reply_pieces(reply, in_lines=True))


#: The golden files of manual sync, by their names. The messages of the exchange are golden as
#: vectors (`message_vectors`).
MESSAGES = {
    "wire changes.json": b"".join(part_pieces(PART, in_lines=False)),
    "wire changes.ndjson": b"".join(part_pieces(PART, in_lines=True)),
}


if __name__ == "__main__":
    for name, message in MESSAGES.items():
        (FOLDER / name).write_bytes(message)
