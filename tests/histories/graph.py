"""The dependency graph of a history, and its cycles by the names of Adya and of Elle.

Adya, Liskov and O'Neil, "Generalized Isolation Level Definitions" (2000); Kingsbury and Alvaro,
"Elle: Inferring Isolation Anomalies from Experimental Observations" (2020).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple


class Edge(enum.IntFlag):
    """The reason for which one operation comes before another.

    Attributes:
        WW: The second one overwrites a version that the first one wrote.
        WR: The second one reads a version that the first one wrote.
        RW: The second one overwrites a version that the first one read.
        SESSION: One session called them in this order.
        REALTIME: The first one returned before the second one was called.
    """

    WW = 1
    WR = 2
    RW = 4
    SESSION = 8
    REALTIME = 16

    def __str__(self) -> str:
        return "+".join(name for name, edge in Edge.__members__.items() if edge & self)


class Cycle(NamedTuple):
    """A cycle of the graph.

    Attributes:
        name: The name of the anomaly, such as ``"G-single-realtime"``.
        nodes: The nodes of the cycle; the last one comes before the first one.
        edges: The edge from each node to the next.
    """

    name: str
    nodes: list[int]
    edges: list[Edge]


#: The edges beyond those of the data, with the end of the name that they give to an anomaly.
_ORDERS: Final = (
    (Edge(0), ""),
    (Edge.SESSION, "-session"),
    (Edge.SESSION | Edge.REALTIME, "-realtime"),
)


class Graph:
    """A directed graph of numbered nodes.

    Attributes:
        edges: The edges of each node: the successors, each with its reasons.
    """

    def __init__(self) -> None:
        self.edges: dict[int, dict[int, Edge]] = {}

    def add(self, first: int, second: int, edge: Edge) -> None:
        """Add an edge. A node that depends on itself depends on nothing else."""
        if first != second:
            successors = self.edges.setdefault(first, {})
            successors[second] = successors.get(second, Edge(0)) | edge
            self.edges.setdefault(second, {})

    @property
    def size(self) -> int:
        """The number of edges."""
        return sum(map(len, self.edges.values()))

    def cycles(self) -> list[Cycle]:
        """Return one cycle of each strongly connected component, the gravest of each.

        A component that already has a cycle by the data alone is not searched again with the edges
        of sessions and of real time.
        """
        found: list[Cycle] = []
        seen: set[int] = set()
        for order, ending in _ORDERS:
            for component in self._components(Edge.WW | Edge.WR | Edge.RW | order):
                if seen.isdisjoint(component):
                    seen.update(component)
                    found.append(self._name(component, order, ending))
        return found

    def _name(self, component: set[int], order: Edge, ending: str) -> Cycle:
        """Return the gravest cycle of a component: the one with the fewest kinds of edges."""
        for name, allowed in (("G0", Edge.WW | order), ("G1c", Edge.WW | Edge.WR | order)):
            for part in self._components(allowed, component):
                node = min(part)
                return self._cycle(name + ending, allowed, part, node, self._next(node, allowed, part))
        allowed = Edge.WW | Edge.WR | order
        for first, second in self._edges(component, Edge.RW):
            if (cycle := self._path(second, first, allowed, component)) is not None:
                return self._closed("G-single" + ending, cycle, allowed | Edge.RW)
        node = min(component)
        allowed |= Edge.RW
        return self._cycle("G2-item" + ending, allowed, component, node, self._next(node, allowed, component))

    def _next(self, node: int, allowed: Edge, among: set[int]) -> int:
        return next(other for other, edge in self.edges[node].items() if other in among and edge & allowed)

    def _edges(self, among: set[int], allowed: Edge) -> Iterator[tuple[int, int]]:
        for first in among:
            for second, edge in self.edges[first].items():
                if second in among and edge & allowed:
                    yield first, second

    def _cycle(self, name: str, allowed: Edge, among: set[int], first: int, second: int) -> Cycle:
        path = self._path(second, first, allowed, among)
        assert path is not None, "the nodes are strongly connected"
        return self._closed(name, path, allowed)

    def _closed(self, name: str, path: list[int], allowed: Edge) -> Cycle:
        edges = [self.edges[first][second] & allowed for first, second in pairwise([*path, path[0]])]
        return Cycle(name, path, edges)

    def _path(self, start: int, end: int, allowed: Edge, among: set[int]) -> list[int] | None:
        """Return a shortest path by breadth-first search; ``None`` if there is none."""
        came_from = {start: start}
        queue = deque([start])
        while queue and end not in came_from:
            node = queue.popleft()
            for other, edge in self.edges[node].items():
                if edge & allowed and other in among and other not in came_from:
                    came_from[other] = node
                    queue.append(other)
        if end not in came_from:
            return None
        path = [end]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def _components(self, allowed: Edge, among: set[int] | None = None) -> Iterator[set[int]]:
        """Yield the strongly connected components of two or more nodes, by the given edges only."""

        def successors(node: int) -> Iterator[int]:
            for other, edge in self.edges[node].items():
                if edge & allowed and (among is None or other in among):
                    yield other

        for component in strong_components(self.edges if among is None else among, successors):
            if len(component) > 1:
                yield set(component)


def strong_components(nodes: Iterable[int], successors: Callable[[int], Iterator[int]]) -> Iterator[Sequence[int]]:
    """Yield the strongly connected components: Tarjan's algorithm (1972), without recursion."""
    indices: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in nodes:
        if root in indices:
            continue
        calls = [(root, successors(root))]
        while calls:
            node, left = calls[-1]
            if node not in indices:
                indices[node] = lowest[node] = len(indices)
                stack.append(node)
                on_stack.add(node)
            for other in left:
                if other not in indices:
                    calls.append((other, successors(other)))
                    break
                if other in on_stack:
                    lowest[node] = min(lowest[node], indices[other])
            else:
                calls.pop()
                if calls:
                    parent = calls[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[node])
                if lowest[node] == indices[node]:
                    yield _cut_off(stack, node, on_stack)


def _cut_off(stack: list[int], node: int, on_stack: set[int]) -> list[int]:
    """Remove the end of the stack from a node on, and return it."""
    start = len(stack) - 1
    while stack[start] != node:
        start -= 1
    component = stack[start:]
    del stack[start:]
    on_stack.difference_update(component)
    return component
