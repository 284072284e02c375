"""What a schedule may do, and how often; the mechanisms of the protocol, and where each is stressed most."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Final


@dataclass(frozen=True)
class Configuration:
    """What a schedule may do, and how often. Sizes are tiny, so that edges are met often."""

    clients: int = 3
    keys: int = 3
    steps: int = 120
    limit: int = 6  # changes, and keys, in a page
    push: int = 2  # changes in a push
    sweep: int = 3  # local keys that one batch of a sweep looks at; the model looks at all
    page_weight: int = 1000  # what a page may weigh: stands for its limit in bytes
    drop: float = 0.15
    duplicate: float = 0.15
    reorder: bool = True
    power: bool = True
    compact: float = 2  # how often, as are the next nine: a local write weighs 22
    forget_deletes: float = 1.5
    backup: float = 1.5
    restore: float = 0.7
    rollback: float = 0
    replace: float = 0
    rebind: float = 0
    settle_conflicts: float = 0  # what was lost is restored, or dismissed
    manual_sync: float = 0  # clients synchronise by the seed's verbs too; needs a server that loses no history
    send_invalid_input: float = 0
    withdraw: float = 0.05  # the share of pushes that are too large for what carries them, and are taken back
    forbidden: float = 0.05  # the share of requests whose push is forbidden, so that they go without it
    manual_before: bool = False  # server and clients have synchronised by the seed's verbs before
    without: frozenset[str] = frozenset()  # mechanisms removed, see MECHANISMS


BASE: Final = Configuration()

#: What can be removed. Each removal must lead to violations, or the mechanism (or the oracle) is idle.
MECHANISMS: Final = {
    "compare_and_clean": "an acknowledged change is cleaned only if it still equals what was sent",
    "frozen_push": "a push is frozen, and resent as it was until it is decided",
    "decision_record": "the server records its decision on each client's last push",
    "own_range": "a client recognises its own range of the log",
    "stale_replies": "a reply counts only for the outstanding request, at the CID it was made for",
    "durable_freeze": "a push is on disk before it is sent",
    "epochs": "histories are compared by epochs",
    "drained_own_range": "nothing is frozen while the own range is open",
    "floor": "a client below the floor resets",
    "sweep": "phase B of a reset deletes what the server no longer has",
    "max_head": "histories are compared up to the highest CID that a page was read at",
    "keys_max_head": "and up to the highest CID that a list of keys was read at",
    "rejected_in_repeats": "the server says which changes of a push it cannot prove to have taken, in repeats and resets too",
    "cid_distance": "a push is refused by distance in CIDs, which compaction cannot shrink",
    "withdrawal_record": "the server records that a push was taken back, and refuses a late copy of it",
    "withheld_push": "a push that is forbidden is set aside, and taken back before anything else is frozen",
    "withheld_echo": "a change that says the same as the push set aside does not beat what was written since",
    "whole_log": "a push is judged by all of the log behind its base, even if the page is cut before its end",
}


#: Configurations that stress one mechanism, where random ones would need too many schedules to miss it.
FOCUS: Final = {
    "cid_distance": replace(
        BASE, limit=2, keys=4, clients=2, drop=0, duplicate=0.4, compact=20, restore=0, forget_deletes=0, steps=200
    ),
    "drained_own_range": replace(BASE, limit=1, keys=2, restore=0),
    "max_head": replace(
        BASE,
        limit=1,
        push=5,
        keys=5,
        clients=2,
        drop=0,
        duplicate=0,
        compact=20,
        restore=10,
        forget_deletes=0,
        steps=200,
    ),
    "keys_max_head": replace(
        BASE,
        limit=50,
        push=5,
        keys=20,
        sweep=50,
        clients=4,
        drop=0.05,
        duplicate=0,
        power=False,
        compact=0,
        forget_deletes=0,
        backup=8,
        restore=10,
        steps=250,
    ),
    "withdrawal_record": replace(BASE, withdraw=0.4, drop=0.1, duplicate=0.3, restore=0),
    "withheld_push": replace(BASE, forbidden=0.4, drop=0.1, duplicate=0.3, restore=0),
    "withheld_echo": replace(BASE, forbidden=0.4, drop=0.3, restore=0),
    "sweep": replace(BASE, keys=8, drop=0.1, duplicate=0.1, compact=5, restore=5, forget_deletes=5, steps=200),
}


#: The seed's verbs lack the exchange's guarantees: a client that moves by them has no history to show, and is taken at
#: its word. So the server keeps its own.
MANUAL_SYNC: Final[dict[str, Any]] = {"manual_sync": 5, "power": False, "restore": 0, "rollback": 0, "replace": 0}


def random_configuration(rng: random.Random) -> Configuration:
    """A point anywhere in the space of configurations."""
    drawn = replace(
        BASE,
        clients=rng.choice([2, 3, 4, 6]),
        keys=rng.choice([1, 2, 3, 5, 8]),
        steps=rng.choice([40, 80, 120, 200]),
        limit=rng.choice([1, 2, 3, 6, 50]),
        push=rng.choice([1, 2, 5]),
        sweep=rng.choice([3, 3, 50]),
        page_weight=rng.choice([1, 4, 8, 1000, 1000, 1000]),
        drop=rng.choice([0, 0.1, 0.3]),
        duplicate=rng.choice([0, 0.1, 0.3]),
        reorder=rng.random() < 0.8,
        power=rng.random() < 0.7,
        compact=rng.choice([0, 2, 8, 20]),
        forget_deletes=rng.choice([0, 0, 2, 6]),
        restore=rng.choice([0, 0, 0.7, 3, 10]),
        rollback=rng.choice([0, 0, 0, 2]),
        manual_before=rng.random() < 0.3,
        withdraw=rng.choice([0, 0.05, 0.3]),
        forbidden=rng.choice([0, 0.05, 0.3]),
        replace=rng.choice([0, 0, 0, 0.7]),
        rebind=rng.choice([0, 0, 1]),
        settle_conflicts=rng.choice([0, 2, 6]),
        send_invalid_input=rng.choice([0, 0.5]),
    )
    if drawn.manual_before:
        drawn = replace(drawn, replace=0)
    return replace(drawn, **MANUAL_SYNC) if rng.random() < 0.2 else drawn
