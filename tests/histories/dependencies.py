"""The dependency graph of a history."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from .graph import Edge, Graph
from .history import Operation
from .index import Anomaly, Index
from .versions import ids


class Dependencies:
    """The graph of the operations of a history.

    Its nodes are the reads, and the writes that are in the log. Reads of a client count as far as
    they are the server's data: without its own changes that it has not pulled back, and without
    ranges that it does not have completely.

    Args:
        index: The history.

    Attributes:
        graph: The graph.
    """

    def __init__(self, index: Index) -> None:
        self.graph = Graph()
        self._index = index
        #: The operation of each node; ``None`` for a delete, and for a moment in time.
        self._operations: list[Operation | None] = []
        self._nodes: dict[int, int] = {}
        self._add_versions()
        self._add_reads()
        self._add_sessions()
        self._add_real_time()

    def anomalies(self) -> Iterator[Anomaly]:
        """Yield a cycle of each strongly connected component as an anomaly."""
        for cycle in self.graph.cycles():
            steps = [
                (operation, edge)
                for node, edge in zip(cycle.nodes, cycle.edges, strict=True)
                if (operation := self._operations[node]) is not None
            ]
            sessions = sorted({operation.session for operation, _ in steps})
            text = " ".join(f"{operation} -{edge}->" for operation, edge in steps)
            yield Anomaly(cycle.name, ", ".join(sessions), text)

    # ---------------------------------------------------------------------------------------- nodes

    def _node(self, operation: Operation) -> int:
        node = self._nodes.get(id(operation))
        if node is None:
            node = self._nodes[id(operation)] = self._new_node(operation)
        return node

    def _new_node(self, operation: Operation | None = None) -> int:
        self._operations.append(operation)
        return len(self._operations) - 1

    # ---------------------------------------------------------------------------------------- edges

    def _add_versions(self) -> None:
        """Add the nodes of all versions, and the edges between those that follow each other."""
        index = self._index
        self._of_cid: dict[int, int] = {}
        for versions in index.versions.of_key.values():
            for version in versions:
                writer = None if version.id is None else index.writers.get((version.key, version.id))
                self._of_cid[version.cid] = self._new_node() if writer is None else self._node(writer)
            for first, second in pairwise(versions):
                self.graph.add(self._of_cid[first.cid], self._of_cid[second.cid], Edge.WW)

    def _add_reads(self) -> None:
        versions = self._index.versions
        for read in self._index.reads():
            if not self._is_server_state(read):
                continue
            node = self._node(read)
            for key, id_ in read.reads.items():
                if self._index.is_overlay(read, key):
                    continue
                position = versions.position(key, id_, read.cid)
                if position is None:
                    continue
                if position:
                    self.graph.add(self._of_cid[position], node, Edge.WR)
                if (later := versions.after(key, position)) is not None:
                    self.graph.add(node, self._of_cid[later.cid], Edge.RW)

    def _is_server_state(self, read: Operation) -> bool:
        return read.is_whole or not self._index.has_store(read.session)

    def _add_sessions(self) -> None:
        """Add the order of each session.

        A client's write comes after its earlier reads. A later read of the client may come before
        it, as long as the server has not accepted it.
        """
        for session, operations in self._index.history.sessions.items():
            last: Operation | None = None
            for operation in operations:
                if not self._is_in_graph(operation):
                    continue
                if last is not None:
                    self.graph.add(self._node(last), self._node(operation), Edge.SESSION)
                if operation.kind == "read" or not self._index.has_store(session):
                    last = operation

    def _is_in_graph(self, operation: Operation) -> bool:
        return id(operation) in self._nodes and operation.outcome == "ok"

    def _add_real_time(self) -> None:
        """Add the order of operations that did not overlap, by a node for each completion."""
        spans = [span for operations in self._index.history.sessions.values() for span in self._spans(operations)]
        ends = sorted((end, node) for _, end, node in spans if end is not None)
        moments = [self._new_node() for _ in ends]
        for first, second in pairwise(moments):
            self.graph.add(first, second, Edge.REALTIME)
        for moment, (_, node) in zip(moments, ends, strict=True):
            self.graph.add(node, moment, Edge.REALTIME)
        for start, _, node in spans:
            before = 0 if start is None else bisect_left(ends, (start, -1))
            if before:
                self.graph.add(moments[before - 1], node, Edge.REALTIME)

    def _spans(self, operations: Sequence[Operation]) -> Iterator[tuple[int | None, int | None, int]]:
        """Yield the time of each operation, as the others can know it: start, end and node.

        A client's write has ended when the client has synchronised afterwards. A client's read is
        at least as recent as the last synchronisation that ended before.
        """
        syncs = [it for it in operations if it.kind == "sync" and it.outcome == "ok"]
        starts, ends = [it.invoked for it in syncs], [it.completed or 0 for it in syncs]
        for operation in operations:
            if id(operation) not in self._nodes:
                continue
            node = self._node(operation)
            if operation.completed is None or operation.outcome != "ok":
                yield operation.invoked, None, node
            elif not self._index.has_store(operation.session):
                yield operation.invoked, operation.completed, node
            elif operation.kind == "read":
                before = bisect_right(ends, operation.invoked)
                yield starts[before - 1] if before else None, operation.completed, node
            else:
                after = bisect_left(starts, operation.completed)
                yield operation.invoked, ends[after] if after < len(ends) else None, node


def unread(index: Index) -> int:
    """Return the number of accepted values that no session has read."""
    read = {(key, id_) for operation in index.reads() for key, id_ in ids(operation.reads)}
    return sum(id_ is not None and (key, id_) not in read for _, key, id_ in index.history.log)
