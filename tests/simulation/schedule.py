"""Schedules: random events on a server, its clients and the messages between them.

A random seed decides all events. The same schedules run the model (`model.py`) and the product
(`product.py`: the real client and server over stores that crash). The invariants are checked after
each step and at the end (`invariants.py`). They use visible state only: data, dirty changes, log
and journal.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .configuration import Configuration
from .invariants import ExpectedClient, History, Oracle
from .merging import RandomMerger
from .sides import SWEPT, ClientUnderTest, Content, InvariantError, Loss, ServerUnderTest

#: Called with a line for each event.
Trace = Callable[[str], object]
#: A key beyond U+FFFF: ``@treehub/level`` loses dirty changes of such keys.
BEYOND_FFFF = "😀"


class Schedule:
    """One run.

    Args:
        rng: Makes all random decisions.
        configuration: The frequencies of the events.
        server: The server.
        clients: The clients, by name.
        trace: Called with a line for each event; ``None`` for no trace.
    """

    def __init__(
        self,
        rng: random.Random,
        configuration: Configuration,
        server: ServerUnderTest,
        clients: Mapping[str, ClientUnderTest],
        trace: Trace | None = None,
    ) -> None:
        self.rng = rng
        self.configuration = configuration
        self.counts: Counter[str] = Counter()
        self._server = server
        self._clients = clients
        self._trace_line = trace
        self._keys = [BEYOND_FFFF, *(f"k{i}" for i in range(1, configuration.keys))]
        self._prefixes = ["", "k", *self._keys]
        self._oracle = Oracle(server, clients, configuration)
        self._network: list[tuple[str, str, Any]] = []  # ("request" | "reply" | "page", client, message)
        self._backups: list[tuple[Any, History]] = []
        self._principals = {name: name for name in clients}
        #: The id that each client had in its last request.
        self._ids: dict[str, Any] = {}
        self._server_writes = 0
        self._mergers: dict[str, RandomMerger] = {}
        if configuration.merges:
            merger_rng = random.Random(rng.getrandbits(32))
            for name, client in clients.items():
                expected = self._oracle.expected[name]
                client.merger = self._mergers[name] = RandomMerger(name, expected, configuration.merges, merger_rng)
        if configuration.manual_before:
            self._sync_manually_before()

    def _trace(self, what: str, *about: object) -> None:
        if self._trace_line is not None:
            self._trace_line(what.format(*map(_shown, about)))

    def _trace_cid(self, name: str, by: str, before: int) -> None:
        if self._trace_line is not None:
            client = self._clients[name]
            self._trace("{} takes a {}: from CID {} to {}, dirty {}", name, by, before, client.cid, [*client.dirty()])

    def _sync_manually_before(self) -> None:
        for _ in range(self.rng.randint(1, 8)):
            self._write_on_server()
        for name, client in self._clients.items():
            if self.rng.random() < 0.7:
                client.pull_all_manually(self._server)
                self._check(name)
                self._trace("{} pulls everything by manual sync, to CID {}", name, client.cid)
        for _ in range(self.rng.randint(0, 3)):
            self._write_on_server()

    # ------------------------------------------------------------------------------------ events

    def run(self) -> Counter[str]:
        """Run random events, let all clients converge, then compare.

        Raises:
            InvariantError: An invariant was violated.
        """
        actions, weights = self._actions()
        for _ in range(self.configuration.steps):
            self.rng.choices(actions, cum_weights=weights)[0]()
        self._trace("--- all faults have stopped; late duplicates arrive")
        self._late_duplicates()
        self._converge()
        self._oracle.compare()
        self._trace(
            "--- all are equal at CID {}; one client pushes while the server goes on writing", self._server.head
        )
        self._push_during_writes()
        self._converge()
        self._oracle.compare()
        return self.counts

    def _actions(self) -> tuple[list[Callable[[], None]], list[float]]:
        options = self.configuration
        actions: list[tuple[Callable[[], None], float]] = [
            (self._write_on_client, 22),
            (self._write_on_server, 4),
            (self._start, 18),
            (self._deliver, 44),
            (self._crash_client, 3),
            (self._compact, options.compact),
            (self._forget_deletes, options.forget_deletes),
            (self._restart_server, 1.5),
            (self._back_up_server, options.backup),
            (self._restore_server, options.restore),
            (self._replace_server, options.replace),
            (self._roll_client_back, options.rollback),
            (self._rebind, options.rebind),
            (self._settle_conflict, options.settle_conflicts),
            (self._pull_manually, options.manual_sync),
            (self._push_manually, options.manual_sync),
            (self._send_invalid_input, options.send_invalid_input),
            (self._write_batch_on_client, options.batches),
            (self._follow, options.follow),
            (self._unfollow, options.follow),
            (self._change_rule, options.rules),
            (self._replace_token, options.replace_token),
            (self._retain, options.retain),
            (self._change_limit, options.change_limit),
        ]
        total, weights = 0.0, []
        for _, weight in actions:
            total += weight
            weights.append(total)
        return [action for action, _ in actions], weights

    def _any_client(self) -> tuple[str, ClientUnderTest, ExpectedClient]:
        name = self.rng.choice(list(self._clients))
        return name, self._clients[name], self._oracle.expected[name]

    def _write_on_client(self) -> None:
        self._write(self.rng.choice(list(self._clients)))

    def _write(self, name: str) -> tuple[str, Content]:
        client, expected = self._clients[name], self._oracle.expected[name]
        expected.count += 1
        key, content = self.rng.choice(self._keys), None if self.rng.random() < 0.25 else (name, expected.count)
        client.write(key, content)
        self._trace("{} writes {} to {}", name, content, key)
        expected.record_write(client, key, content)
        self._check(name)
        return key, content

    def _write_batch_on_client(self) -> None:
        name, client, expected = self._any_client()
        keys = self.rng.sample(self._keys, min(len(self._keys), self.rng.randint(2, 3)))
        changes: dict[str, Content] = {}
        for key in keys:
            expected.count += 1
            changes[key] = (name, expected.count)
        client.write_batch(changes)
        self._trace("{} writes {} to {} in one batch", name, [*changes.values()], keys)
        expected.record_batch(client, changes)
        self._check(name)
        self.counts["batches"] += 1

    def _follow(self) -> None:
        name, client, _ = self._any_client()
        prefix = self.rng.choice(self._prefixes)
        client.follow(prefix)
        self._trace("{} follows {!r}", name, prefix)
        self._check(name)
        self.counts["followed"] += 1

    def _unfollow(self) -> None:
        name, client, _ = self._any_client()
        followed = client.followed()
        if followed:
            prefix = self.rng.choice(followed)
            client.unfollow(prefix)
            self._trace("{} unfollows {!r}", name, prefix)
            self._check(name)

    def _change_rule(self) -> None:
        keys = frozenset(key for key in self._keys if self.rng.random() < 0.4)
        self._server.refuse_keys(keys)
        self._trace("the server refuses changes of {}", sorted(keys))

    def _write_on_server(self) -> None:
        most = self.configuration.server_batch
        self._write_together(self.rng.randint(1, most) if most > 1 else 1)

    def _write_together(self, count: int) -> None:
        changes = [self._next_server_change() for _ in range(count)]
        self._server.write_together(changes)
        for key, content in changes:
            self._trace("the server writes {} to {}, CID {}", content, key, self._server.head)
        self._oracle.record_log("server", together=True)

    def _next_server_change(self) -> tuple[str, Content]:
        self._server_writes += 1
        key = self.rng.choice(self._keys)
        return key, None if self.rng.random() < 0.25 else ("server", self._server_writes)

    def _start(self) -> None:
        name, client, _ = self._any_client()
        self._send(name, client.start())
        self._check(name)

    def _deliver(self) -> None:
        if not self._network:
            return
        options = self.configuration
        index = self.rng.randrange(len(self._network)) if options.reorder else 0
        kind, name, message = self._network[index]
        fate = self.rng.random()
        if fate < options.drop:
            del self._network[index]
            self.counts["dropped"] += 1
            self._trace("a {} of {} is lost", kind, name)
            return
        if fate > 1 - options.duplicate:
            self.counts["duplicated"] += 1
        else:
            del self._network[index]
        if kind == "request":
            reply = self._exchange(name, message)
            if reply is not None:
                self._network.append(("reply", name, reply))
        else:
            client = self._clients[name]
            before = client.cid
            request = None
            if kind == "reply":
                request = self._receive(name, message)
            else:
                client.apply_manually(message)
            self._trace_cid(name, kind, before)
            self._send(name, request)
            self._check(name)

    def _receive(self, name: str, reply: Any) -> Any:
        """Deliver a reply to a client, and record the answers of its merger if it was taken."""
        client = self._clients[name]
        before = client.commits
        request = client.receive(reply)
        answers = self._mergers[name].take() if self._mergers else []
        for loss, answer in answers:
            self._trace("{} merges {} with {} of {}: {}", name, loss.local, loss.remote, loss.key, answer)
        if answers and client.commits > before:
            self._oracle.record_settlements(name, answers, before + 1)
            self.counts["merged"] += len(answers)
        return request

    def _send(self, name: str, request: Any) -> None:
        if request is not None:
            self._trace("{} sends a request from CID {}, with {}", name, request.cid, request.keys)
            self._network.append(("request", name, request))
            self._ids[name] = request.client

    def _exchange(self, name: str, request: Any) -> Any:
        before = self._server.head
        reply = self._server.exchange(request, self._principals[name])
        self._trace(
            "a request of {} from CID {} arrives: from CID {} to {}", name, request.cid, before, self._server.head
        )
        self._oracle.record_log(name)
        self._oracle.check_server_wins(name, request.cid, before)
        self._oracle.check_groups(name, before)
        self._oracle.check_knowledge(name, before)
        self.counts["exchanged"] += 1
        return reply

    def _crash_client(self) -> None:
        name, client, expected = self._any_client()
        power = self.configuration.power and self.rng.random() < 0.5
        client.crash(power=power)
        self._trace("{} crashes{}", name, " with the power" if power else "")
        expected.drop_lost_commits(client)
        expected.cid = client.cid
        self._check(name)
        self.counts["crashed"] += 1

    def _compact(self) -> None:
        self._server.compact()
        self._trace("the server compacts its log")

    def _forget_deletes(self) -> None:
        deletes = [cid for cid, (_, content) in self._server.log(0).items() if content is None]
        if deletes:
            before = self.rng.choice(deletes) + 1
            self._server.forget_deletes(before)
            self._trace("the server forgets deletes before CID {}", before)
            self.counts["deletes forgotten"] += 1

    def _retain(self) -> None:
        to = self.rng.randint(0, self._server.head)
        before = self.rng.randint(0, to + 1)
        forgotten = self._settled_clients() if self.rng.random() < 0.7 else []
        self._server.retain(to, before, [self._ids[name] for name in forgotten])
        self._trace("the server compacts its log up to CID {}, and drops deletes before {}", to, before)
        if forgotten:
            self._trace("the server forgets {}", ", ".join(forgotten))
        self.counts["retained"] += 1
        self.counts["clients forgotten"] += len(forgotten)

    def _settled_clients(self) -> list[str]:
        """Return the clients that know the decisions on all their pushes, and never forget them.

        A server may forget the others too early, if they stay away for too long: an accepted
        weakness of the protocol.
        """
        if self.configuration.power or self.configuration.rollback:
            return []
        return [name for name in self._ids if self._clients[name].drained]

    def _restart_server(self) -> None:
        power = self.configuration.power and self.rng.random() < 0.5
        self._server.restart(power=power)
        self._trace("the server crashes{}, and starts at CID {}", " with the power" if power else "", self._server.head)
        self._oracle.drop_lost_changes()

    def _back_up_server(self) -> None:
        self._backups.append((self._server.backup(), dict(self._oracle.history)))
        self._trace("the server is backed up at CID {}", self._server.head)

    def _restore_server(self) -> None:
        if self._backups:
            backup, history = self.rng.choice([self._backups[-1], self.rng.choice(self._backups)])
            self._server.restore(backup)
            self._oracle.replace_history(history)
            self._trace("the server is restored from a backup, to CID {}", self._server.head)
            self.counts["restored"] += 1

    def _replace_server(self) -> None:
        self._server.replace()
        self._oracle.replace_history({})
        self._trace("another server, an empty one, takes the server's place")
        self.counts["replaced"] += 1

    def _roll_client_back(self) -> None:
        name, client, expected = self._any_client()
        if expected.saved is None or self.rng.random() < 0.5:
            expected.save_copy(client)
            return
        expected.restore_copy(client)
        self._trace("{} is rolled back to a copy, to CID {}", name, client.cid)
        self.counts["rolled back"] += 1

    def _rebind(self) -> None:
        name, client, expected = self._any_client()
        self._trace("{} is told to follow the current server", name)
        expected.may_conflict_with_itself = True
        self._send(name, client.rebind())
        self.counts["rebound"] += 1

    def _replace_token(self) -> None:
        """Give a client a token of another name, and refuse the requests sent with the old one."""
        name, _, _ = self._any_client()
        self._principals[name] += "'"
        self._network = [item for item in self._network if item[:2] != ("request", name)]
        self._trace("{} has a token of another name", name)
        self.counts["tokens replaced"] += 1

    def _change_limit(self) -> None:
        """Continue a client with a program that asks for longer pages, or for shorter ones."""
        name, client, _ = self._any_client()
        client.limit = self.rng.choice([1, 2, 6, 50])
        self._trace("{} asks for {} changes at a time", name, client.limit)
        self.counts["limits changed"] += 1

    def _settle_conflict(self) -> None:
        name, client, expected = self._any_client()
        losses: list[Loss] = client.journal()
        if not losses:
            return
        loss = self.rng.choice(losses)
        if self.rng.random() < 0.5:
            client.restore_loss(loss)
            self._trace("{} restores the conflict over {}: it writes {} again", name, loss.key, loss.local)
            expected.record_restoration(client, loss)
            self.counts["restored losses"] += 1
        else:
            client.dismiss_loss(loss)
            self._trace("{} dismisses the conflict over {}: it had lost {}", name, loss.key, loss.local)
            expected.record_dismissal(client, loss)
            self.counts["dismissed losses"] += 1
        self._check(name)

    def _pull_manually(self) -> None:
        name, client, _ = self._any_client()
        page = client.pull_manually(self._server)
        if page is not None:
            self._trace("{} requests changes by manual sync, from CID {}", name, client.cid)
            self._network.append(("page", name, page))
            self.counts["pulled manually"] += 1

    def _push_manually(self) -> None:
        name, client, _ = self._any_client()
        pushed = client.push_manually(self._server)
        if pushed is None:
            return
        self._trace("{} pushes by manual sync, to CID {}", name, self._server.head)
        self._oracle.record_log(name)
        if self.rng.random() < 0.5:
            self._write(name)  # between dirty() and clean()
        client.clean_manually(pushed)
        self._trace_cid(name, "answer", client.cid)
        self._check(name)
        self.counts["pushed manually"] += 1

    def _send_invalid_input(self) -> None:
        self._server.send_invalid_input()
        self._any_client()[1].send_invalid_input()
        self._trace("invalid input is refused")

    # ------------------------------------------------------------------------------- convergence

    def _late_duplicates(self) -> None:
        for kind, name, message in self._network:
            if kind == "request" and self.rng.random() < 0.5:
                self._exchange(name, message)
        self._network.clear()

    def _converge(self) -> None:
        for merger in self._mergers.values():
            merger.is_stubborn = True
        for process in (self._server, *self._clients.values()):
            process.stop_faults()
        for _ in range(200):
            for name, client in self._clients.items():
                request = client.start()
                for _ in range(200):
                    if request is None:
                        break
                    request = self._round_trip(name, request)
                else:
                    raise InvariantError(f"{name} does not drain in 200 exchanges")
            if all(client.drained and client.cid == self._server.head for client in self._clients.values()):
                return
        raise InvariantError("no convergence in 200 rounds")

    def _round_trip(self, name: str, request: Any) -> Any:
        """Deliver a request and its reply. Return the client's next request, if it sends one."""
        client = self._clients[name]
        before = client.cid
        reply = self._exchange(name, request)
        request = None if reply is None else self._receive(name, reply)
        self._trace_cid(name, "reply", before)
        self._check(name)
        return request

    def _push_during_writes(self) -> None:
        """Check that two attempts suffice for a push of a client that has caught up."""
        name, client, expected = self._any_client()
        if expected.may_conflict_with_itself or self._principals[name] != name:
            return  # its first push may be answered with "forked", and needs another attempt
        key, content = self._write(name)
        expected.merged_with = {}  # earlier merges were not of this change
        request = client.start()
        for _ in range(2):
            self._write_together(1)  # a commit beyond the limit would refuse the push for its distance
            request = self._round_trip(name, request or client.start())
        is_merged = (key, content) in expected.merged_with  # it is a new change that equals the old one
        if client.dirty().get(key, SWEPT) == content and not is_merged:
            raise InvariantError(f"starvation: {name} has pushed {content} to {key} twice without success")

    def _check(self, name: str) -> None:
        self._oracle.check(name)


def _shown(thing: object) -> object:
    match thing:
        case None:
            return "a delete"
        case (str() as author, int() as number):
            return f"{author}/{number}"
        case list() | tuple() as keys:
            return " ".join(map(str, keys)) or "nothing"
    return thing
