"""The plan: the comparisons of each workload, their contenders and their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The peers that are not written in Python; see `benchmarks.peers`.
Peer = Literal["ceiling", "node"]


@dataclass(frozen=True)
class Target:
    """The bounds of a figure."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float | None) -> bool | None:
        """Return True if ``value`` is within the bounds; ``None`` if there is no value."""
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Contender:
    """One implementation in a comparison: a row of the table.

    Attributes:
        label: The name of the row. It mentions differences in the work.
        workload: The name in `benchmarks.workloads.WORKLOADS`.
        core: The core of the process, ``"c"`` or ``"python"``; empty for the default.
        engine: The backend; ``"leveldb"`` is the native engine. Empty if the workload opens no
            level.
        peer: The peer that runs the workload, if it is not written in Python.
        share: The factor by which the number of records is multiplied: below 1 for slow
            contenders. Rates are per record.
        target: The bounds of the ratio of the first contender's rate to this one's.
    """

    label: str
    workload: str
    core: str = ""
    engine: str = ""
    peer: Peer | None = None
    share: float = 1
    target: Target | None = None


@dataclass(frozen=True)
class Figure:
    """A result of a measurement besides its duration.

    Attributes:
        name: The key in the results of the workload.
        label: The name in the table.
        unit: The unit of the number.
        target: The bounds for the first contender.
    """

    name: str
    label: str
    unit: str = ""
    target: Target | None = None


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work. All ratios relate to the first one.

    Attributes:
        measurement: The name of the work.
        contenders: The contenders; the first one is treehub-level.
        figures: The results besides the duration.
        target: The bounds of the first contender's rate, in records per second.
    """

    measurement: str
    contenders: tuple[Contender, ...]
    figures: tuple[Figure, ...] = ()
    target: Target | None = None


def _times(faster: float | None) -> Target | None:
    return None if faster is None else Target(at_least=faster)


def _native(workload: str, *, share: float = 1) -> Contender:
    return Contender("core=c on its own engine", workload, "c", "leveldb", share=share)


def _on_plyvel(workload: str, *, share: float = 1) -> Contender:
    return Contender("core=c on plyvel", workload, "c", "plyvel", share=share)


def _pure(workload: str, faster: float | None = None, *, share: float = 1) -> Contender:
    return Contender("core=python on plyvel", workload, "python", "plyvel", share=share, target=_times(faster))


def _ceiling(workload: str, label: str, faster: float | None = None) -> Contender:
    return Contender(label, f"{workload}_ceiling", peer="ceiling", target=_times(faster))


def _node(workload: str, label: str, faster: float | None = None, *, share: float = 1) -> Contender:
    return Contender(f"Node: {label}", workload, peer="node", share=share, target=_times(faster))


def _building(workload: str, faster: float) -> tuple[Contender, ...]:
    return Contender("core=c", workload, "c"), Contender("core=python", workload, "python", target=_times(faster))


#: An awaited put takes ten times as long as a record of a batch.
_PUTS = 0.1
#: PouchDB, and puts that each wait for an fsync, would take minutes.
_SLOW = 0.1
_SLOWEST = 0.01
#: A request over HTTP takes milliseconds.
_REQUESTS = 0.02

_LAG = (
    Figure("lag_p50", "loop lag, p50", "ms"),
    Figure("lag_p99", "loop lag, p99", "ms", target=Target(at_most=10)),
    Figure("lag_max", "loop lag, longest", "ms"),
)

PLAN: dict[str, tuple[Comparison, ...]] = {
    "build": (
        Comparison("build, values as objects", _building("build", 2)),
        Comparison("build, values already JSON", _building("build_json", 4)),
    ),
    "fillbatch": (
        Comparison(
            "fillbatch",
            (
                _native("fillbatch"),
                _on_plyvel("fillbatch"),
                _pure("fillbatch", 2),
                Contender("plyvel alone, entries given", "fillbatch_plyvel"),
                _ceiling("fillbatch", "C program on LevelDB, entries given", 0.8),
                _node("fillbatch_treehub", "@treehub/level on leveldown", 3.5),
                _node("fillbatch_treehub_tuned", "the same, our LevelDB options"),
                _node("fillbatch_classic", "classic-level, no log"),
                _node("fillbatch_pouchdb", "PouchDB bulkDocs", share=_SLOW),
            ),
        ),
        Comparison(
            "fillbatch into PostgreSQL",
            (
                Contender("core=c on PostgreSQL", "fillbatch", "c", "postgres"),
                Contender("psycopg alone, COPY of each batch", "fillbatch_copy", target=_times(0.6)),
                Contender("psycopg alone, one COPY of all", "fillbatch_copy_at_once"),
                _native("fillbatch"),
            ),
        ),
        Comparison(
            "fillbatch into SQLite",
            (
                Contender("core=c on SQLite", "fillbatch", "c", "sqlite"),
                Contender("the same on LevelDB", "fillbatch", "c", "leveldb", target=_times(0.5)),
                Contender("sqlite3 alone, entries given", "fillbatch_sqlite"),
            ),
        ),
        Comparison(
            "fillbatch into SQLite, keys in order",
            (
                Contender("core=c on SQLite", "fillbatch_in_order", "c", "sqlite"),
                Contender("the same on LevelDB", "fillbatch_in_order", "c", "leveldb"),
            ),
        ),
    ),
    "fillawait": (
        Comparison(
            "fillawait",
            (
                _native("fillawait", share=_PUTS),
                _on_plyvel("fillawait", share=_PUTS),
                _pure("fillawait", share=_PUTS),
                Contender("plyvel alone, entries given", "fillawait_plyvel", share=_PUTS, target=_times(1 / 3)),
                _node("fillawait_treehub", "@treehub/level on leveldown", 6, share=_PUTS),
                _node("fillawait_classic", "classic-level, no log", share=_PUTS),
            ),
        ),
    ),
    "fillsync": (
        Comparison(
            "fillsync",
            (
                _native("fillsync", share=_PUTS),
                Contender("one after another", "fillsync_alone", "c", "leveldb", share=_SLOWEST, target=_times(30)),
                _pure("fillsync", share=_PUTS),
            ),
        ),
    ),
    "readhot": (
        Comparison(
            "readhot",
            (
                _native("readhot"),
                _on_plyvel("readhot"),
                _pure("readhot"),
                Contender("orjson.loads(plyvel.get(k))", "readhot_plyvel", target=_times(1 / 1.5)),
                _ceiling("readhot", "C program on LevelDB, not decoded"),
                _node("readhot_treehub", "@treehub/level on leveldown", 12),
                _node("readhot_classic", "classic-level get"),
                _node("readhot_classic_sync", "classic-level getSync"),
            ),
        ),
    ),
    "readrandom": (
        Comparison(
            "readrandom",
            (
                _native("readrandom"),
                _on_plyvel("readrandom"),
                _pure("readrandom"),
                Contender("orjson.loads(plyvel.get(k))", "readrandom_plyvel"),
                _ceiling("readrandom", "C program on LevelDB, not decoded", 0.8),
                _node("readrandom_classic_sync", "classic-level getSync"),
            ),
        ),
    ),
    "queryall": (
        Comparison(
            "queryall",
            (
                _native("queryall"),
                _on_plyvel("queryall"),
                _pure("queryall", 2),
                Contender("plyvel and orjson alone", "queryall_plyvel"),
                _ceiling("queryall", "C program on LevelDB, not decoded"),
                _node("queryall_treehub", "@treehub/level on leveldown", 1.5),
                _node("queryall_classic", "classic-level iterator.all"),
            ),
        ),
    ),
    "scan": (
        Comparison(
            "scan",
            (
                _native("scan"),
                Contender("queryall of the same", "queryall", "c", "leveldb", target=_times(0.7)),
                _pure("scan"),
            ),
            (Figure("grown", "memory growth", "MB", target=Target(at_most=10)),),
        ),
    ),
    "pull": (
        Comparison(
            "pull",
            (
                _native("pull"),
                _on_plyvel("pull"),
                _pure("pull"),
                _node("pull_pouchdb", "PouchDB replicate", 40, share=_SLOW),
            ),
            target=Target(at_least=250_000),
        ),
    ),
    "pull-http": (
        Comparison(
            "pull-http",
            (
                _native("pull_http"),
                Contender("pull, within one process", "pull", "c", "leveldb", target=_times(0.6)),
                _pure("pull_http"),
            ),
        ),
    ),
    "clients": (
        Comparison(
            "clients with separate keys: each put is synced with one server over HTTP",
            (
                Contender("1000 clients", "clients_1000", "c", share=_REQUESTS),
                Contender("100 clients", "clients_100", "c", share=_REQUESTS, target=_times(0.8)),
                Contender("10 clients", "clients_10", "c", share=_REQUESTS, target=_times(0.8)),
            ),
            (Figure("requests", "requests per write synced", target=Target(at_most=1.1)),),
        ),
        Comparison(
            "clients that share all keys: each put is delivered to every client",
            (
                Contender("1000 clients", "clients_1000_shared", "c", share=_REQUESTS),
                Contender("100 clients", "clients_100_shared", "c", share=_REQUESTS),
                Contender("10 clients", "clients_10_shared", "c", share=_REQUESTS),
            ),
            (Figure("requests", "requests per write synced", target=Target(at_most=1.1)),),
        ),
    ),
    "replicas": (
        Comparison(
            "replicas: the same 100 clients, with servers over one PostgreSQL",
            (
                Contender("3 replicas", "clients_3_replicas", "c", "postgres", share=_REQUESTS),
                Contender("1 replica", "clients_1_replica", "c", "postgres", share=_REQUESTS),
                Contender("1 server on LevelDB", "clients_100", "c", share=_REQUESTS),
            ),
            (Figure("requests", "requests per write synced", target=Target(at_most=1.1)),),
        ),
    ),
    "ranges": (
        Comparison(
            "ranges: live clients with a range each, and a write to one of them at a time",
            (
                Contender("10,000 clients", "ranges_10000", "c", share=_REQUESTS),
                Contender("1000 clients", "ranges_1000", "c", share=_REQUESTS, target=_times(1 / 1.5)),
                Contender("10 clients", "ranges_10", "c", share=_REQUESTS, target=_times(1 / 1.5)),
            ),
            (Figure("median", "median time to the client", "ms"),),
        ),
        Comparison(
            "ranges: first sync over HTTP, relative to all keys",
            (
                Contender("1 % of the keys", "first_sync_range", "c", "leveldb"),
                Contender("all keys", "first_sync_all", "c", "leveldb", target=_times(50)),
            ),
            (Figure("of_all", "bytes received, relative to all keys", "%", target=Target(at_most=2)),),
        ),
    ),
    "firstsync": (
        Comparison(
            "firstsync: a new client over HTTP",
            (
                Contender("each record written once", "first_sync", "c", "leveldb"),
                Contender(
                    "each written ten times, none compacted",
                    "first_sync_long_log",
                    "c",
                    "leveldb",
                    target=Target(at_most=1.1),
                ),
                Contender("within one process", "pull", "c", "leveldb"),
            ),
            target=Target(at_least=600_000),
        ),
        Comparison(
            "wger: 61,549 rows, 57.7 MB, over HTTP",
            (Contender("core=c on its own engine", "wger", "c", "leveldb"),),
            (Figure("until_readable", "until the last row can be read", "s", target=Target(at_most=1.5)),),
        ),
    ),
    "history": (
        Comparison(
            "history: compact_log() of overwrites",
            (_native("history"), _pure("history")),
            (
                Figure("pulled", "changes pulled by a new client, per key", target=Target(at_most=1)),
                Figure("pull_seconds", "duration of that pull", "s"),
            ),
        ),
    ),
    "load10m": (
        Comparison(
            "load10m: load() of ten times the records",
            (_native("load10m", share=10),),
            (
                Figure("of_first", "rate relative to the first tenth", target=Target(at_least=0.6)),
                Figure("peak", "peak resident memory", "MB", target=Target(at_most=400)),
            ),
        ),
    ),
    "lag": (
        Comparison("lag while load() runs", (_native("lag_load"), _pure("lag_load")), _LAG),
        Comparison("lag while query() runs", (_native("lag_query"), _pure("lag_query")), _LAG),
    ),
}
