"""Scenarios of filling: the live entries of a range in parts, beside the log."""

from __future__ import annotations

from typing import Any

from .connection import Answer
from .scene import ServerScene
from .suite import SUITE


def _entries(answers: list[Answer]) -> list[list[Any]]:
    return [entry for answer in answers for entry in answer.get("entries", [])]


@SUITE.scenario("Reply")
def a_range_is_filled_in_parts(scene: ServerScene) -> None:
    """The parts of a range have its live entries, each once, in key order, without deletes."""
    writer, reader = scene.peer(), scene.peer(complete=[])
    keys = [scene.key(name) for name in "abcdef"]
    writer.push(*([key, 1] for key in keys), [scene.key("gone"), 1])
    writer.push([scene.key("gone")], [keys[0], 2])
    answers = [*reader.fill(scene.prefix, limit=2)]
    answers[0].require(len(answers[0]["entries"]) <= 2, "a part of at most 2 entries")
    expected = [[key, 2 if key == keys[0] else 1] for key in keys]
    answers[-1].require(
        _entries(answers) == expected, f"the parts together are {expected}, and not {_entries(answers)}"
    )


@SUITE.scenario("Reply")
def keys_are_in_the_order_of_their_utf_8_bytes(scene: ServerScene) -> None:
    """A fill sorts keys by their UTF-8 bytes, which UTF-16 sorts otherwise above U+FFFF."""
    writer, reader = scene.peer(), scene.peer(complete=[])
    keys = [scene.key(name) for name in ("a", "é", "\uffee", "\U00010000", "😀")]
    writer.push(*([key, 1] for key in reversed(keys)))
    answers = [*reader.fill(scene.prefix, limit=2)]
    found = [entry[0] for entry in _entries(answers)]
    answers[-1].require(found == keys, f"the keys in the order {keys}, and not {found}")


@SUITE.scenario("Request")
def the_log_is_sent_for_the_filled_part(scene: ServerScene) -> None:
    """While a range is filled, the log has the changes of the part that the client has already."""
    writer, reader = scene.peer(), scene.peer(complete=[])
    a, b, c, d = (scene.key(name) for name in "abcd")
    writer.push(*([key, 1] for key in (a, b, c, d)))
    first = reader.apply(reader.ask(fill=[scene.prefix, ""], limit=2))
    first.require([entry[0] for entry in first.get("entries", [])] == [a, b], f"a part with {a} and {b}")
    writer.pull()
    writer.push([a, 2], [b], [d, 2])
    second = reader.ask(fill=[scene.prefix, b])
    second.require([row[1] for row in second["page"]] == [[a, 2], [b]], f"the changes of {a} and {b}, and not of {d}")
    second.expect("the part shows the entries at the head", entries=[[c, 1], [d, 2]])


@SUITE.scenario("The server")
def a_part_is_read_at_the_head(scene: ServerScene) -> None:
    """A page that is cut has no part: its entries would be newer than the CID of the page."""
    writer, reader = scene.peer(), scene.peer()
    writer.push([scene.key("range/k"), 1])
    writer.push([scene.key("log/single"), 1])
    writer.push(*([scene.key(f"log/{number}"), number] for number in range(3)), groups=[[0, 3]])
    # The page ends before the group: there would be room for the entry.
    fields: dict[str, Any] = {"complete": [scene.key("log/")], "fill": [scene.key("range/"), ""], "limit": 3}
    cut = reader.apply(reader.ask(**fields))
    cut.require(cut["more"] and not cut.get("fill"), "a cut page without a part")
    last = reader.pull(**{**fields, "limit": 10})[-1]
    last.require(last.get("fill"), "the page at the head has the part")
    last.expect("the part has the range's entry", entries=[[scene.key("range/k"), 1]])


@SUITE.scenario("Reply")
def a_part_leaves_out_complete_ranges(scene: ServerScene) -> None:
    """A part does not repeat the keys of prefixes that the client has complete."""
    writer, reader = scene.peer(), scene.peer()
    have, want, last = scene.key("a/have"), scene.key("b"), scene.key("z")
    writer.push([have, 1], [want, 1], [last, 1])
    reader.pull(complete=[scene.key("a/")])
    answers = [*reader.fill(scene.prefix, complete=[scene.key("a/")])]
    found = [entry[0] for entry in _entries(answers)]
    answers[-1].require(found == [want, last], f"the keys {want} and {last}, and not {found}")


@SUITE.scenario("The server")
def a_push_gets_no_part(scene: ServerScene) -> None:
    """The reply to a push has no part, since the part would show the pushed changes themselves."""
    peer = scene.peer()
    fields: dict[str, Any] = {"complete": [], "partial": [scene.prefix], "fill": [scene.prefix, ""]}
    answer = peer.ask(**peer.frozen([scene.key("k"), 1]), **fields)
    answer.require(answer["ack"] and not answer.get("fill"), "a decision without a part")


@SUITE.scenario("Reply")
def an_empty_range_ends_at_once(scene: ServerScene) -> None:
    """The only part of an empty range is its last one, without entries."""
    reader = scene.peer(complete=[])
    answer = next(reader.fill(scene.key("empty/")))
    answer.expect("no entries", entries=[])
    answer.require(answer["fill"]["end"] is True, "the part is the last one")
