"""T7, records: ``python -m tests.crash.records --stores N --seed S [--backend NAME]``.

A bit flips where no checksum notices it: in memory, in a SQLite file, in a backup. One record of a
store is damaged, mostly one of the metadata, and each verb is called on a copy of that store. A
verb ends within a bounded number of exchanges, with a result or a `LevelError`. If an error blames
the store, `verify` reports a fault too. A repaired store has no faults, and syncs.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter
from typing import Final

from treehub_level import CorruptionError, DecodeError, LevelError, ModeMismatchError, StateError

from .disk import scratch_folder
from .record_store import RowStore
from .record_templates import Rows, Template, templates
from .record_verbs import VERBS, EndlessSyncError, Verb, repair_and_sync

#: JSON that replaces a part of a value.
_OTHERS: Final = (b"0", b"-1", b"9007199254740993", b"1e99", b"true", b"null", b'"x"', b"[]", b"{}", b"[1]", b"7")
#: The weight of each kind of damage.
_DAMAGE: Final = {"flip value": 10, "flip key": 3, "replace": 4, "cut": 1, "remove": 1, "swap": 1}


class FindingError(AssertionError):
    """A damaged store that is not handled."""


def kinds_of(rows: Rows) -> dict[bytes, list[bytes]]:
    """Return the keys of rows by their kind: each own record, the log or dirty set, the data."""
    kinds: dict[bytes, list[bytes]] = {}
    for key in sorted(rows):
        if key.startswith(b"!!"):
            kind = key.partition(b"/")[0]
        else:
            kind = key if key == b"!" else key[:1] if key[:1] == b"!" else b"data"
        kinds.setdefault(b"change" if kind == b"!" and key != b"!" else kind, []).append(key)
    return kinds


def damage(rows: Rows, rng: random.Random) -> str:
    """Damage one row, and describe the damage."""
    kinds = kinds_of(rows)
    keys = kinds[rng.choice(sorted(kinds))]
    key = rng.choice(keys)
    value = rows[key]
    how = rng.choices([*_DAMAGE], [*_DAMAGE.values()])[0]
    if how == "flip key":
        del rows[key]
        flipped = _flip(key, rng)
        rows[flipped] = value
        return f"{how} {key!r} to {flipped!r}"
    if how == "remove":
        del rows[key]
        return f"{how} {key!r}"
    if how == "flip value":
        rows[key] = _flip(value, rng)
    elif how == "cut":
        rows[key] = value[: rng.randrange(len(value))]
    elif how == "swap":
        other = rng.choice(keys)
        rows[key], rows[other] = rows[other], value
    else:
        rows[key] = _replace(value, rng)
    return f"{how} {key!r}: {value!r} to {rows[key]!r}"


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _replace(value: bytes, rng: random.Random) -> bytes:
    """Replace one number, string or word of a JSON text by other JSON."""
    parts = [*re.finditer(rb'"[^"]*"|[0-9.]+|null|true|false', value)]
    if not parts:
        return rng.choice(_OTHERS)
    part = rng.choice(parts)
    return value[: part.start()] + rng.choice(_OTHERS) + value[part.end() :]


def check(template: Template, rows: Rows, store: RowStore) -> Counter[str]:
    """Call every verb on a damaged store.

    Args:
        template: The store before the damage.
        rows: Its rows after the damage.
        store: The place for the damaged store.

    Returns:
        The number of verbs that raised each kind of error, or none.

    Raises:
        FindingError: A verb does not end, raises another error than a `LevelError`, or blames a
            store that `verify` finds sound.
    """
    counts: Counter[str] = Counter()
    blamed: list[str] = []
    for name, verb in VERBS[template.mode].items():
        store.fill(rows)
        error = outcome(name, verb, store, template)
        counts["no error" if error is None else type(error).__name__] += 1
        if isinstance(error, (CorruptionError, DecodeError, ModeMismatchError)):
            blamed.append(f"{name}: {type(error).__name__}: {error}")
    store.fill(rows)
    verification = store.verify()
    counts["faults reported"] += not verification.ok
    if blamed and verification.ok:
        raise FindingError(f"verify calls the store sound, but {blamed[0]}")
    store.fill(rows)
    error = outcome("repair", repair_and_sync, store, template)
    # A store of a later version cannot be told from one whose format is damaged.
    if error is not None and not (isinstance(error, StateError) and "has format" in str(error)):
        raise FindingError(f"repair: {type(error).__name__}: {error}")
    return counts


def outcome(name: str, verb: Verb, store: RowStore, template: Template) -> LevelError | None:
    """Call a verb, and return its error.

    Raises:
        FindingError: The error is not a `LevelError`, or the verb does not end.
    """
    try:
        verb(store, template)
    except EndlessSyncError as error:
        raise FindingError(f"{name} does not end: {error}") from error
    except LevelError as error:
        return error
    except Exception as error:
        raise FindingError(f"{name} raises {type(error).__name__}: {error}") from error
    return None


def run(store: RowStore, cycles: int, seed: int, *, keep_going: bool = False) -> tuple[Counter[str], list[str]]:
    """Damage stores, and call every verb on each of them.

    Returns:
        The counts of `check`, and the findings; without ``keep_going`` the first one is raised.
    """
    counts: Counter[str] = Counter()
    findings: list[str] = []
    made = templates()
    for number in range(cycles):
        rng = random.Random(f"{seed}/{number}")
        template = made[number % len(made)]
        rows = dict(template.rows)
        how = damage(rows, rng)
        try:
            counts += check(template, rows, store)
        except FindingError as finding:
            where = f"seed {seed}, store {number}, {template.name}: {how}: {finding}"
            if not keep_going:
                raise FindingError(where) from finding.__cause__
            findings.append(where)
            print(where, flush=True)
    return counts, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, default=20_000, help="number of stores to damage")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="selects the damage")
    parser.add_argument("--backend", choices=["memory", "leveldb", "sqlite"], help="one backend only")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a finding")
    arguments = parser.parse_args()
    began, counts, found = time.monotonic(), Counter[str](), 0
    backends = [arguments.backend] if arguments.backend else ["memory", "leveldb", "sqlite"]
    for backend in backends:
        # A store on disk takes some 50 times as long as one in memory.
        part = arguments.stores if backend == "memory" or arguments.backend else arguments.stores // 50
        with scratch_folder() as folder:
            try:
                done, findings = run(RowStore(backend, folder), part, arguments.seed, keep_going=arguments.keep_going)
            except FindingError as finding:
                traceback.print_exception(finding.__cause__)
                print(f"{backend}: {finding}")
                sys.exit(1)
        counts += done
        found += len(findings)
    print(f"seed {arguments.seed}: {found} findings in {time.monotonic() - began:,.0f} s: {dict(counts)}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
