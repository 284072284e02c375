"""The workloads of peers in other languages. Their processes read the records from files."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from ..peers import CEILING, NODE, find
from ..process import Child
from ..records import make_records
from .common import BATCH, HOT_KEYS, Figures, Measure, NotInstalledError, Workload, filled, keys_to_read, new_path
from .plyvel_alone import server_entries

#: Entries per batch of records: value and change of each record, and the CID.
_ENTRIES = 2 * BATCH + 1
_SIZES = struct.Struct("=II")


@asynccontextmanager
async def _run_peer(label: str, command: list[str], *, warm: bool) -> AsyncIterator[Measure]:
    """Measure in the process of a peer.

    Args:
        label: The name of the peer for error messages.
        command: The command that starts the process.
        warm: True to run the workload once before the first measurement.

    Raises:
        NotInstalledError: A dependency of the peer is missing.
    """
    child = Child(label, command)
    try:
        missing = child.prepare()
        if missing is not None:
            raise NotInstalledError(missing)
        if warm:
            child.measure()

        async def measure() -> Figures:
            return child.measure()

        yield measure
    finally:
        child.close()


# ------------------------------------------------------------------------------------ the C program


@asynccontextmanager
async def fillbatch_ceiling(records: int, engine: str) -> AsyncIterator[Measure]:
    """Write the entries that `fillbatch` writes, in batches of the same size."""
    with new_path() as path:
        entries = _write_entries(path, (entry for batch in server_entries(records) for entry in batch))
        command = [str(CEILING), "fill", entries, f"{path}.filled", str(_ENTRIES)]
        async with _run_peer("ceiling", command, warm=False) as measure:
            yield measure


def _getting_ceiling(among: int | None) -> Workload:
    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        with filled(records) as path:
            wanted = keys_to_read(records, among=among or records)
            entries = _write_entries(path, ((key.encode(), b"") for key in wanted))
            async with _run_peer("ceiling", [str(CEILING), "get", entries, path], warm=True) as measure:
                yield measure

    return workload


@asynccontextmanager
async def queryall_ceiling(records: int, engine: str) -> AsyncIterator[Measure]:
    """Read every row, without decoding or copying."""
    with filled(records) as path:
        async with _run_peer("ceiling", [str(CEILING), "scan", path], warm=True) as measure:
            yield measure


def _write_entries(path: str, entries: Iterable[tuple[bytes, bytes | None]]) -> str:
    """Write entries to a file in the format of `ceiling.c`, and return its path."""
    name = f"{path}.entries"
    with open(name, "wb") as file:
        for key, value in entries:
            assert value is not None
            file.write(_SIZES.pack(len(key), len(value)) + key + value)
    return name


# --------------------------------------------------------------------------------------------- Node


def _in_node(module: str, name: str, among: int | None = None) -> Workload:
    """Return the workload of a module in ``benchmarks/node/``."""

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        with TemporaryDirectory(prefix="treehub-level-bench-") as folder:
            _write_json(Path(folder), records, keys_to_read(records, among=among or records))
            command = [find("node"), "--expose-gc", str(NODE / "child.mjs"), module, name, folder]
            async with _run_peer(f"{module} {name}", command, warm=not name.startswith("fill")) as measure:
                yield measure

    return workload


def _write_json(folder: Path, records: int, wanted: list[str]) -> None:
    with open(folder / "records.jsonl", "wb") as file:
        file.writelines(orjson.dumps(record) + b"\n" for record in make_records(records))
    (folder / "asked.json").write_bytes(orjson.dumps(wanted))


WORKLOADS: dict[str, Workload] = {
    "fillbatch_ceiling": fillbatch_ceiling,
    "readhot_ceiling": _getting_ceiling(HOT_KEYS),
    "readrandom_ceiling": _getting_ceiling(None),
    "queryall_ceiling": queryall_ceiling,
    "fillbatch_treehub": _in_node("treehub", "fillbatch"),
    "fillbatch_treehub_tuned": _in_node("treehub", "fillbatch_tuned"),
    "fillawait_treehub": _in_node("treehub", "fillawait"),
    "readhot_treehub": _in_node("treehub", "get", HOT_KEYS),
    "queryall_treehub": _in_node("treehub", "queryall"),
    "fillbatch_classic": _in_node("classic", "fillbatch"),
    "fillawait_classic": _in_node("classic", "fillawait"),
    "readhot_classic": _in_node("classic", "get", HOT_KEYS),
    "readhot_classic_sync": _in_node("classic", "get_sync", HOT_KEYS),
    "readrandom_classic_sync": _in_node("classic", "get_sync"),
    "queryall_classic": _in_node("classic", "queryall"),
    "fillbatch_pouchdb": _in_node("pouchdb", "fillbatch"),
    "pull_pouchdb": _in_node("pouchdb", "pull"),
}
