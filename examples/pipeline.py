"""A data pipeline: several processes work through one SQLite store, and any of them may be killed.

    python examples/pipeline.py orders.jsonl pipeline.sqlite --workers 4

Each line of the file is an order: {"customer": "ada", "price": 250, "count": 2}. The result is the
total of each customer. Kill it at any time, and start it again with the same arguments: no order is
lost, and none is counted twice.

- `load` imports the orders as `todo/…`, in batches. It may be repeated from the start.
- A worker moves an order to `claim/…`, for a limited time (a lease): only one worker gets it.
- With its result the worker removes the claim, writes `done/…`, and adds to the total, all or
  nothing. If another worker has it meanwhile, since the lease has ended: `ConditionError`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from treehub_level import ConditionError, LevelError, LevelTransaction
from treehub_level.blocking import Level


def import_orders(level: Level, file: Path) -> None:
    """Import a file unless that is done. An import that was killed begins again."""
    marker = f"imported/{file.name}"
    if not level.has(marker):
        level.put(marker, level.sublevel("todo").load(orders_of(file)))


def orders_of(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                order = json.loads(line)
                yield f"{file.name}:{number:09}", {name: order[name] for name in ("customer", "price", "count")}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}, line {number}, is not an order: {error!r}") from error


class Claim(NamedTuple):
    key: str
    record: dict[str, Any]


def claim(tx: LevelTransaction, seconds: float) -> Claim | float | None:
    """Claim an order. Return the seconds until a lease ends if there is none; None at the end."""
    todo, claims, done = tx.sublevel("todo"), tx.sublevel("claim"), tx.sublevel("done")
    now = time.time()
    running = claims.query()
    late = [(key, record["order"]) for key, record in running if record["until"] < now]
    for key, order in late or todo.scan():
        todo.delete(key)
        if done.has(key):  # a repeated import has brought it back
            continue
        record = {"order": order, "worker": os.getpid(), "until": now + seconds}
        claims.put(key, record)
        return Claim(key, record)
    return min((record["until"] - now for _, record in running), default=None)


def finish(tx: LevelTransaction, claimed: Claim, total: int) -> None:
    """Record a result, once."""
    tx.delete(f"claim/{claimed.key}", if_value=claimed.record)  # raises ConditionError
    tx.put(f"done/{claimed.key}", total, if_absent=True)
    customer = f"total/{claimed.record['order']['customer']}"
    tx.put(customer, tx.get(customer, 0) + total)


def work(path: str, seconds: float) -> None:
    """Work until all is done. Runs in a process of its own."""
    with Level(path, backend="sqlite") as level:
        while (claimed := level.transact(lambda tx: claim(tx, seconds))) is not None:
            if isinstance(claimed, float):
                time.sleep(min(claimed, 0.1))  # another worker may finish, or die
                continue
            order = claimed.record["order"]
            total = order["price"] * order["count"]  # here an application works for minutes
            try:
                level.transact(partial(finish, claimed=claimed, total=total))
            except ConditionError:
                print(f"{claimed.key} took too long: another worker has it", file=sys.stderr)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Add up orders, in several processes.")
    arguments.add_argument("orders", type=Path)
    arguments.add_argument("store")
    arguments.add_argument("--workers", type=int, default=os.cpu_count())
    arguments.add_argument("--lease", type=float, default=60, help="seconds after which an order is claimed again")
    options = arguments.parse_args()
    try:
        with Level(options.store, backend="sqlite") as level:
            level.update("runs", lambda runs: (runs or 0) + 1)
            import_orders(level, options.orders)
            spawn = get_context("spawn")
            workers = [spawn.Process(target=work, args=(options.store, options.lease)) for _ in range(options.workers)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            for customer, total in level.sublevel("total").scan():
                print(f"{customer:<20} {total:>12,}")
            print(f"{level.sublevel('done').count():,} orders in {level.get('runs')} runs")
        if any(worker.exitcode for worker in workers):
            sys.exit("pipeline: a worker has failed; start it again to be sure that all orders are done")
    except (LevelError, OSError, ValueError) as error:
        sys.exit(f"pipeline: {error}")


if __name__ == "__main__":
    main()
