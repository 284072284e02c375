"""Scenarios of pulling: pages of the log, their limits, and the ranges that a client follows."""

from __future__ import annotations

from ..scenarios import UnsupportedError
from ..vectors import read_reply, read_request
from .scene import ServerScene
from .suite import SUITE


@SUITE.scenario("The server")
def a_pull_returns_the_log(scene: ServerScene) -> None:
    """A page has the changes after the client's CID, in the order of their CIDs."""
    writer, reader = scene.peer(), scene.peer()
    start = reader.cid
    writer.push([scene.key("a"), {"x": [1, None]}], [scene.key("b"), "b"])
    writer.push([scene.key("a")])
    rows = [[start + 1, [scene.key("a"), {"x": [1, None]}]], [start + 2, [scene.key("b"), "b"]]]
    rows.append([start + 3, [scene.key("a")]])
    answer = reader.ask()
    answer.expect("all changes since the client's CID", page=rows, count=3, cid=start + 3, head=start + 3, more=False)
    answer.expect("a pull has no decision", ack=None, rejected=[])
    reader.apply(answer)
    reader.ask().expect("nothing is new at the head", page=[], count=0, cid=start + 3, more=False)


@SUITE.scenario("The server")
def pages_of_a_limit_join_into_the_log(scene: ServerScene) -> None:
    """A page has at most ``limit`` changes, and the next one goes on after the last of them."""
    writer, reader = scene.peer(), scene.peer()
    for number in range(5):
        writer.push([scene.key(str(number)), number])
    start, found = reader.cid, []
    for answer in reader.pull(limit=2):
        answer.require(len(answer["page"]) <= 2, "a page of at most 2 changes")
        if answer["more"]:
            answer.expect("a cut page ends at the last record that was read", cid=answer["page"][-1][0])
        found += answer["page"]
    expected = [[start + 1 + number, [scene.key(str(number)), number]] for number in range(5)]
    answer.require(found == expected, f"the pages together are {expected}, and not {found}")


@SUITE.scenario("Commits")
def a_page_ends_before_a_group_that_does_not_fit(scene: ServerScene) -> None:
    """A page does not end inside changes that belong together, if they fit into a page."""
    writer, reader = scene.peer(), scene.peer()
    start = reader.cid
    writer.push([scene.key("single"), 0])
    writer.push([scene.key("a"), 1], [scene.key("b"), 2], [scene.key("c"), 3], groups=[[0, 3]])
    first = reader.apply(reader.ask(limit=3))
    first.expect("the page ends before the group", page=[[start + 1, [scene.key("single"), 0]]], more=True)
    second = reader.apply(reader.ask(limit=3))
    second.require(len(second["page"]) == 3, "the next page has the whole group")


@SUITE.scenario("Commits")
def a_group_that_exceeds_a_page_is_cut(scene: ServerScene) -> None:
    """Changes that belong together are cut if they exceed the ``limit`` of the request."""
    writer, reader = scene.peer(), scene.peer()
    keys = [scene.key(str(number)) for number in range(4)]
    writer.push(*([key, 1] for key in keys), groups=[[0, 4]])
    found = [row[1][0] for row in reader.rows(limit=3)]
    reader.ask().require(found == keys, f"pages of at most 3 changes have the keys {keys}, and not {found}")


@SUITE.scenario("Commits")
def a_page_lists_the_commits_of_its_changes(scene: ServerScene) -> None:
    """A page tells the client, and the groups, of the pushes whose changes it has."""
    writer, reader = scene.peer(), scene.peer()
    start = reader.cid
    writer.push([scene.key("a"), 1], [scene.key("b"), 2], [scene.key("c"), 3], groups=[[0, 2]])
    answer = reader.ask()
    if not answer.get("commits"):
        raise UnsupportedError("the server records no commits, which is optional")
    first, last, client, _, _, groups = answer["commits"][0]
    found = [first, last, client, groups]
    expected = [start + 1, start + 3, writer.client, [[start + 1, start + 2]]]
    answer.require(found == expected, f"a commit with first, last, client and groups {expected}, and not {found}")


@SUITE.scenario("Request")
def the_log_is_filtered_by_the_ranges_of_the_request(scene: ServerScene) -> None:
    """The log has the keys of ``complete`` and ``partial``; the CID moves on over all others."""
    writer, reader = scene.peer(), scene.peer()
    a, b, c = scene.key("a/1"), scene.key("b/1"), scene.key("c/1")
    writer.push([a, 1], [b, 1], [c, 1])
    answer = reader.ask(complete=[scene.key("a/")], partial=[scene.key("b/")])
    answer.require([row[1][0] for row in answer["page"]] == [a, b], f"the changes of {a} and {b} alone")
    answer.expect("the page reaches the head", cid=answer["head"], more=False)
    nothing = reader.ask(complete=[], partial=[])
    nothing.expect("a client that wants no key is at the head at once", page=[], cid=nothing["head"], more=False)


@SUITE.scenario("Reply")
def read_returns_present_values(scene: ServerScene) -> None:
    """A page at the head has the present values of the keys in ``read``; ``[key]`` if absent."""
    writer, reader = scene.peer(), scene.peer()
    present, deleted, absent = scene.key("present"), scene.key("deleted"), scene.key("absent")
    writer.push([present, [1, 2]], [deleted, 1])
    writer.push([deleted])
    reader.pull()
    answer = reader.ask(read=[present, deleted, absent])
    found = {row[0]: row[1:] for row in answer.get("values", [])}
    answer.require(found == {present: [[1, 2]], deleted: [], absent: []}, "the value of one key, and two absent ones")
    answer.expect("value_count is their number", value_count=3)
    writer.push([present, 3])
    writer.push([present, 4])
    cut = reader.ask(read=[present], limit=1)
    cut.require(not cut.get("values"), "no values before the page reaches the head: they would be newer than its CID")


@SUITE.scenario("Limits")
def values_come_back_as_they_were_sent(scene: ServerScene) -> None:
    """A value of any kind that JSON has, within the limits, comes back unaltered."""
    writer, reader = scene.peer(), scene.peer()
    deep: object = 1
    for _ in range(60):
        deep = [deep]
    values = [None, True, 0, -1, 2**53 + 1, 2**64 - 1, 0.1, 1e300, "", '\u2028\0"😀é', [], {}, {"ключ": [None]}, deep]
    changes = [[scene.key(f"{number:02}"), value] for number, value in enumerate(values)]
    writer.push(*changes)
    answer = reader.ask()
    answer.require([row[1] for row in answer["page"]] == changes, "the values that were pushed")


@SUITE.scenario("Versions")
def unknown_fields_are_ignored_and_optional_ones_may_be_absent(scene: ServerScene) -> None:
    """A request with a field of a later version, or without the optional ones, is answered."""
    peer = scene.peer()
    peer.ask(later={"x": 1}, why="unknown fields are ignored").expect("a page", kind="page")
    request = peer.request()
    for name in ("complete", "partial", "fill"):
        del request[name]
    peer.send(request, why="complete, partial and fill are optional").expect("a page", kind="page")


@SUITE.scenario("Encoding")
def lines_hold_the_same_as_one_document(scene: ServerScene) -> None:
    """A reply in NDJSON has the fields and rows of the reply in JSON."""
    writer, reader = scene.peer(), scene.peer()
    writer.push([scene.key("a"), {"x": "\n"}], [scene.key("b"), 1])
    writer.push([scene.key("b")])
    request = reader.request(read=[scene.key("a"), scene.key("b")])
    document = reader.send(request)
    lines = scene.connection.exchange(request, in_lines=True)
    if not lines.headers.get("content-type", "").startswith("application/x-ndjson"):
        raise UnsupportedError("the server sends no NDJSON, which is optional")
    parsed = read_request(request)
    same = read_reply(lines.body, parsed, in_lines=True) == read_reply(document.body, parsed)
    lines.require(same, f"the same reply as in JSON, which is {document.body.decode()}")
