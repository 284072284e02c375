"""Which rows the table has: for each workload its measurements, and for each measurement who is compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """One row: what is run, and in the process of which core."""

    label: str
    core: str
    workload: str


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work. The others are what the first is compared with."""

    measurement: str
    contenders: tuple[Contender, ...]


def _cores(workload: str) -> tuple[Contender, ...]:
    return Contender("core=c", "c", workload), Contender("core=python", "python", workload)


PLAN: dict[str, tuple[Comparison, ...]] = {
    "build": (
        Comparison("build, values as objects", _cores("build")),
        Comparison("build, values already JSON", _cores("build_json")),
    ),
    "fillbatch": (
        Comparison(
            "fillbatch", (*_cores("fillbatch"), Contender("plyvel, same entries", "python", "fillbatch_plyvel"))
        ),
    ),
    "readhot": (
        Comparison(
            "readhot", (*_cores("readhot"), Contender("orjson.loads(plyvel.get(k))", "python", "readhot_plyvel"))
        ),
    ),
    "queryall": (Comparison("queryall", _cores("queryall")),),
    "pull": (Comparison("pull", _cores("pull")),),
}
