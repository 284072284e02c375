"""The options of a schedule, and the mechanisms of the protocol that it can remove."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Final


@dataclass(frozen=True)
class Configuration:
    """The options of a schedule: sizes, and the frequencies of events.

    The sizes are tiny, so that schedules meet their limits often.
    """

    clients: int = 3
    keys: int = 3
    steps: int = 120
    limit: int = 6  # changes, or keys, in a page; see also `change_limit`
    distance: int = 6  # CIDs that a client may be behind when its push is judged
    push: int = 2  # changes in a push
    reads: int = 20  # records of the log that one request reads
    page_weight: int = 1000  # the maximum weight of a page: stands for its limit in bytes
    lost_weight: int = 1000  # the maximum weight of local changes that a page overwrites in one batch
    server_batch: int = 1  # changes in one commit of the server, at most
    drop: float = 0.15
    duplicate: float = 0.15
    reorder: bool = True
    power: bool = True
    compact: float = 2  # a frequency, like the next nine; a local write has the frequency 22
    forget_deletes: float = 1.5
    backup: float = 1.5
    restore: float = 0.7
    rollback: float = 0
    replace: float = 0
    rebind: float = 0
    settle_conflicts: float = 0  # a conflict is restored or dismissed
    manual_sync: float = 0  # clients also use manual sync; needs a server that loses no history
    send_invalid_input: float = 0
    withdraw: float = 0.05  # the share of pushes that are too large, and are withdrawn
    forbidden: float = 0.05  # the share of requests whose push is forbidden
    replace_token: float = 0  # a client gets a token of another name, and the old one is revoked
    batches: float = 3  # a client writes a batch
    follow: float = 0.5  # a client follows a range, or ends to follow one
    rules: float = 0.5  # the server refuses other keys than before
    retain: float = 0  # the server compacts a part of its log, and forgets clients
    pressure: float = 0  # the share of replies for which the server is short of memory
    change_limit: float = 0  # another version of the program, with another limit, continues a client
    merges: float = 0  # the share of losses that a merger of the client settles
    keep_base: bool = True  # clients remember the base value of each dirty key
    manual_before: bool = False  # server and clients have used manual sync before
    without: frozenset[str] = frozenset()  # mechanisms to remove, see MECHANISMS


BASE: Final = Configuration()

#: The mechanisms that a run can remove. Each removal must lead to violations: otherwise the
#: mechanism is not needed, or the oracle is blind to it.
MECHANISMS: Final = {
    "compare_and_clean": "an accepted change is dropped from the dirty set only if it is still the frozen one",
    "frozen_push": "a push is frozen, and resent unchanged until it is decided",
    "decision_record": "the server records its decision on each client's last push",
    "own_range": "a client recognises its own changes in the log",
    "stale_replies": "a reply counts only for the outstanding request, at the CID of that request",
    "durable_freeze": "a push is durable before it is sent",
    "epochs": "histories are compared by their epochs",
    "drained_own_range": "nothing is frozen while the own range is open",
    "floor": "a client below the floor resets",
    "max_head": "histories are compared up to the highest CID at which a page was read",
    "rejected_in_repeats": "repeats and resets list the changes that the log does not show as accepted",
    "cid_distance": "a push is refused by the distance in CIDs, which compaction cannot shrink",
    "fixed_distance": "that distance is the same for all copies of a push, whatever the limit of each request",
    "withdrawal_record": "the server records that a push was withdrawn, and rejects a late copy of it",
    "withdrawal_lifetime": "and keeps that record until every copy of the push is too far behind",
    "lasting_decisions": "a decision on a push stays until each copy is too far behind, or below the floor",
    "withheld_push": "a forbidden push is withheld, and withdrawn before another one is frozen",
    "withheld_echo": "a pulled change that equals the withheld one does not beat a newer dirty change",
    "repeat_by_nonce": "a repeat is answered under another principal, too: its nonce proves the client",
    "base_value_of_server": "the base value of a key that stays dirty follows the server's value",
    "base_values_reset": "a reset and a rebind void the base values, and record none until the reset ends",
    "whole_log": "the whole log after its base decides on a push, even if the page is cut",
    "floor_of_pushes": "a push from below the floor is not decided, since the log lacks deletes",
    "piece_at_head": "a piece of a range comes with a page that reaches the head, and was read there",
    "filled_part": "the log is pulled for the filled part of a range, too",
    "absent_in_piece": "a piece proves that the keys which it does not hold are deleted",
    "piece_beats_unchecked": "a piece beats a dirty change that was compared with nothing of the server",
    "base_of_unchecked": "but not one that was made with knowledge of the same value",
    "base_of_accepted": "and not one that is newer than the same value, which the client has pushed",
    "log_decides": "a piece leaves a dirty change alone if the log decides on it",
    "reset_checks_dirty": "a reset with dirty changes pulls the log from the last common CID",
    "uncompared": "and is not after a reset either, which pulls the log from a later CID",
    "unfollow_checks_dirty": "a range that loses a filled part of it pulls the log, if it has dirty changes there",
    "unfilled_write": "a change in a range that is not filled yet is compared by the fill, if the log is pulled, too",
    "leaving": "the log is pulled for the dirty changes of a range that is not followed any more",
    "leaving_in_flight": "so a reply does not count whose request was sent before the range was unfollowed",
    "unchecked_freeze": "a dirty change that was compared with nothing of the server is not frozen",
    "evict": "clean keys that are not followed are removed",
    "groups": "the changes of a batch are accepted or rejected as a whole",
    "groups_lose_whole": "a batch of which one change loses to a pulled one loses as a whole",
    "values_at_head": "the values of lost changes come with a page that reaches the head",
    "whole_values": "a page without changes has room for all of them, also if memory is short",
    "refusals_heal": "a change that a rule refuses is journaled, and replaced by the server's value",
    "overtaken": "and one that was written again after the refusal still loses to the changes of others",
    "refusal_record": "the server records that a rule refused a push, and rejects a late copy of it",
    "merge_in_batch": "a merged change is written in the batch that takes the server's value",
    "merge_base": "its base value is the server's value that it was merged with",
    "merge_knows": "a fill does not beat it with that same value",
    "merge_groups": "a batch is merged as a whole, or journaled as a whole",
    "repair_bound": "a refused change is repaired a few times, then journaled",
    "whole_commits": "a page does not end inside a commit that fits a page",
}


_LEAVING: Final = replace(BASE, clients=2, keys=4, limit=2, follow=8, drop=0.3, restore=0, batches=0, rules=0)

#: Configurations that stress one mechanism, if random ones would need too many schedules to show
#: its absence.
FOCUS: Final = {
    "cid_distance": replace(
        BASE,
        limit=2,
        distance=2,
        keys=4,
        clients=2,
        drop=0,
        duplicate=0.4,
        compact=20,
        restore=0,
        forget_deletes=0,
        withdraw=0,
        forbidden=0,
        batches=0,
        follow=0,
        rules=0,
        steps=200,
    ),
    "fixed_distance": replace(
        BASE,
        limit=2,
        distance=2,
        change_limit=6,
        keys=4,
        clients=2,
        drop=0,
        duplicate=0.6,
        power=False,
        restore=0,
        withdraw=0,
        forbidden=0,
        batches=0,
        follow=0,
        rules=0,
        steps=200,
    ),
    "drained_own_range": replace(BASE, limit=1, distance=1, keys=2, restore=0),
    "max_head": replace(
        BASE,
        limit=1,
        distance=1,
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
    "floor_of_pushes": replace(BASE, follow=5, drop=0.1, forget_deletes=6, compact=5, restore=0),
    "log_decides": replace(
        BASE, clients=2, keys=8, limit=2, rules=0, follow=0, restore=0, forget_deletes=6, compact=4, drop=0, steps=200
    ),
    "piece_at_head": replace(BASE, keys=8, limit=2, follow=3, drop=0.05, restore=0),
    "refusal_record": replace(
        BASE, keys=8, distance=50, push=1, rules=20, batches=0, follow=0, restore=0, drop=0, duplicate=0.5, steps=200
    ),
    "lasting_decisions": replace(
        BASE,
        clients=2,
        keys=3,
        limit=50,
        distance=50,
        push=20,
        rules=20,
        batches=0,
        follow=0,
        restore=0,
        drop=0,
        duplicate=0.3,
        power=False,
        retain=20,
        steps=400,
    ),
    "overtaken": replace(
        BASE,
        clients=3,
        keys=3,
        limit=1,
        distance=50,
        push=5,
        rules=4,
        drop=0,
        duplicate=0,
        reorder=False,
        power=False,
        compact=0,
        restore=0,
        forget_deletes=0,
        withdraw=0,
        forbidden=0,
        batches=0,
        follow=0,
        steps=200,
    ),
    "base_values_reset": replace(
        BASE,
        clients=2,
        keys=3,
        restore=3,
        rebind=3,
        drop=0.05,
        compact=0,
        forget_deletes=0,
        withdraw=0,
        forbidden=0,
        follow=0,
        rules=0,
        batches=0,
    ),
    "unfilled_write": replace(BASE, clients=2, keys=8, limit=2, follow=8, drop=0.05, restore=0, batches=0, rules=0),
    "leaving": _LEAVING,
    "leaving_in_flight": _LEAVING,
    "unchecked_freeze": replace(BASE, clients=2, keys=8, limit=2, push=5, rebind=2, drop=0.05, restore=0),
    "uncompared": replace(
        BASE, clients=4, keys=8, limit=3, follow=0, rules=0, restore=0, forget_deletes=6, compact=4, drop=0.05
    ),
    "values_at_head": replace(BASE, keys=5, limit=2, batches=10, drop=0.05, restore=0),
    "whole_values": replace(BASE, keys=5, batches=10, pressure=0.5, drop=0.05, restore=0, follow=0),
    "base_of_unchecked": replace(
        BASE, clients=2, keys=4, limit=1, follow=5, rules=0, restore=0, reads=1, drop=0, batches=0, steps=200
    ),
    "base_of_accepted": replace(
        BASE,
        clients=2,
        limit=2,
        follow=14,
        restore=0,
        reads=3,
        drop=0.5,
        batches=0,
        rules=0,
        forbidden=0,
        withdraw=0,
    ),
    "unfollow_checks_dirty": replace(
        BASE, clients=2, keys=5, limit=1, follow=10, restore=0, reads=1, drop=0.1, batches=0
    ),
    "piece_beats_unchecked": replace(BASE, keys=8, limit=2, follow=0, rules=0, restore=0, drop=0.05),
    "reset_checks_dirty": replace(
        BASE, clients=2, keys=8, limit=2, rules=0, follow=0, restore=0, forget_deletes=6, compact=4, drop=0, steps=200
    ),
    "withdrawal_record": replace(BASE, withdraw=0.4, drop=0.1, duplicate=0.3, restore=0),
    "withdrawal_lifetime": replace(
        BASE,
        withdraw=0.6,
        drop=0.1,
        duplicate=0.3,
        restore=0,
        clients=4,
        limit=2,
        distance=2,
        follow=0,
        rules=0,
        batches=0,
        forbidden=0,
    ),
    "withheld_push": replace(BASE, forbidden=0.4, drop=0.1, duplicate=0.3, restore=0),
    "withheld_echo": replace(BASE, forbidden=0.4, drop=0.3, restore=0),
    "repeat_by_nonce": replace(BASE, replace_token=6, drop=0.3, restore=0),
    "absent_in_piece": replace(
        BASE, keys=8, drop=0.1, duplicate=0.1, compact=5, restore=5, forget_deletes=5, steps=200
    ),
    "merge_in_batch": replace(BASE, clients=2, merges=1, restore=0, follow=0, keep_base=False),
    "merge_base": replace(BASE, clients=2, merges=1, restore=0, follow=0),
    "merge_knows": replace(
        BASE, clients=2, keys=5, limit=2, merges=1, batches=12, follow=8, rules=0, restore=0, drop=0.05
    ),
    "merge_groups": replace(BASE, clients=2, keys=4, merges=0.6, batches=10, restore=0, follow=0, rules=0),
    "repair_bound": replace(BASE, clients=2, merges=1, rules=4, restore=0, follow=0),
    "whole_commits": replace(
        BASE, limit=4, keys=5, server_batch=4, compact=5, restore=0, follow=0, power=False, steps=200
    ),
}


#: Manual sync lacks the guarantees of the exchange: its client has no history to show, and its CID
#: is accepted as it is. So the server must not lose history.
#: It knows no groups, and follows all keys.
MANUAL_SYNC: Final[dict[str, Any]] = {
    "manual_sync": 5,
    "power": False,
    "restore": 0,
    "rollback": 0,
    "replace": 0,
    "batches": 0,
    "follow": 0,
}


def random_configuration(rng: random.Random) -> Configuration:
    """Draw a configuration."""
    drawn = replace(
        BASE,
        clients=rng.choice([2, 3, 4, 6]),
        keys=rng.choice([1, 2, 3, 5, 8]),
        steps=rng.choice([40, 80, 120, 200]),
        limit=rng.choice([1, 2, 3, 6, 50]),
        push=rng.choice([1, 2, 5]),
        reads=rng.choice([1, 3, 10, 50]),
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
        replace_token=rng.choice([0, 0, 2]),
        batches=rng.choice([0, 0, 3, 10]),
        follow=rng.choice([0, 0, 0.5, 3]),
        rules=rng.choice([0, 0, 1, 4]),
        keep_base=rng.random() < 0.8,
    )
    drawn = replace(drawn, distance=drawn.limit)
    if drawn.manual_before:
        drawn = replace(drawn, replace=0)
    if rng.random() < 0.5:  # the distance is that of a full page, or another one
        drawn = replace(drawn, distance=rng.choice([1, 2, 3, 6, 50]), change_limit=rng.choice([0, 2, 6]))
    if rng.random() < 0.3:
        drawn = replace(drawn, lost_weight=rng.choice([1, 2, 4]))
    if rng.random() < 0.2:
        drawn = replace(drawn, **MANUAL_SYNC)
    drawn = replace(drawn, server_batch=rng.choice([1, 1, 2, 4]), merges=rng.choice([0, 0, 0.5, 1]))
    return replace(drawn, retain=rng.choice([0, 0, 2, 6]))
