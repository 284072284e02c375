"""A client process and a server process, killed while they synchronise."""

from __future__ import annotations

from refusing import check as refuse

from treehub_level import Mode, blocking

from .disk import Disk, environment
from .history import History, StoreState, check, options_of
from .killing import Crashing, Progress, kill_later, last_reported, launch, wait_for_output
from .refusals import Pair, check_refusals

#: The prefix of the keys that are written on the server.
OTHERS = "other "


class CrashingPair(Crashing):
    """A client that writes and synchronises, and its server. Each cycle kills both in turn.

    Afterwards they synchronise in this process. The client must have the server's data of the
    ranges that it follows. The data of the server must be one state of the client's history: the
    client pushes all its changes, and the server syncs them before it acknowledges. The changes
    that the server refuses must be in the journal.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._history = History(Mode.NORMAL, self.seed, self.durable)
        self._server = self.folder / "hub" / "server"
        self._server.parent.mkdir(exist_ok=True)
        self._disks.append(Disk(self._server, self.folder / "synced-server"))

    def _crash(self, cycle: int) -> Progress:
        url, output = self.folder / "url", self.folder / "said"
        self._write_on_server(cycle)
        variables = environment(self._server, self.folder / "synced-server") if self.power else None
        server = launch("server", [self._server, self.engine], url, variables)
        wait_for_output(server, url)
        client = launch("client", [url.read_text(), *self._arguments(cycle)], output, self._environment())
        wait_for_output(client, output)
        victims = [(server, url), (client, output)]
        self._rng.shuffle(victims)
        for process, said in victims:
            kill_later(process, said, self._rng)
        self._acknowledged_pairs = last_reported(output, "kept")
        return Progress.read(output, self._history.units)

    def _write_on_server(self, cycle: int) -> None:
        with blocking.Level(self._server, backend=self.engine, mode=Mode.SERVER, **options_of(self.engine)) as server:
            for number in range(20):
                server.put(f"{OTHERS}{self._rng.randrange(100)}", [cycle, number])
            if self._rng.random() < 0.3:
                server.compact_log()
        self._disks[1].mark_synced()

    def _held(self, cycle: int) -> StoreState:
        options = options_of(self.engine)
        pairs = [Pair(cycle, number) for number in range(self._acknowledged_pairs)]
        with (
            blocking.Level(self._server, backend=self.engine, mode=Mode.SERVER, check=refuse, **options) as server,
            blocking.Level(self._store, backend=self.engine, mode=Mode.CLIENT, **options) as client,
        ):
            is_filling = any(not item.complete for item in client.followed())
            assert client.sync(server).consistent
            data = dict(server.query())
            followed = tuple(item.prefix for item in client.followed())
            expected = {key: value for key, value in data.items() if key.startswith(followed)}
            assert dict(client.query()) == expected, f"in cycle {cycle} the client and its server differ"
            assert client.cid == server.cid
            required = [pair for pair in pairs if pair.is_durable or not self.power]
            self.counts["refused"] += check_refusals(client, server, required)
            self.counts["fills interrupted"] += is_filling
        check(self._server, self.engine)
        check(self._store, self.engine)
        return StoreState({key: value for key, value in data.items() if not key.startswith(OTHERS)})
