"""A client and a server, each a process of its own, killed while they synchronise."""

from __future__ import annotations

from treehub_level import Mode, blocking

from .disk import Disk, environment
from .history import OPTIONS, History, Moment, check
from .killing import Crashing, Said, kill_later, launch, wait_for_word

#: What the keys begin with that are written on the server.
OTHERS = "other "


class CrashingPair(Crashing):
    """A client that writes and synchronises, and its server. Both are killed in each cycle, one after the other.

    Then they synchronise here, and must be equal. What the client was told to write is what it held
    at one moment: it pushes all that it has, and what the server takes is durable there.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._history = History(Mode.NORMAL, self.seed, self.durable)
        self._server = self.folder / "hub" / "server"
        self._disks.append(Disk(self._server, self.folder / "synced-server"))

    def _crash(self, cycle: int) -> Said:
        url, output = self.folder / "url", self.folder / "said"
        self._write_on_server(cycle)
        variables = environment(self._server, self.folder / "synced-server") if self.power else None
        server = launch("server", [self._server, self.engine], url, variables)
        wait_for_word(server, url)
        client = launch("client", [url.read_text(), *self._arguments(cycle)], output, self._environment())
        wait_for_word(client, output)
        victims = [(server, url), (client, output)]
        self._rng.shuffle(victims)
        for process, said in victims:
            kill_later(process, said, self._rng)
        return Said.read(output, self._history.units)

    def _write_on_server(self, cycle: int) -> None:
        with blocking.Level(self._server, backend=self.engine, mode=Mode.SERVER, **OPTIONS) as server:
            for number in range(20):
                server.put(f"{OTHERS}{self._rng.randrange(100)}", [cycle, number])
            if self._rng.random() < 0.3:
                server.compact_log()
        self._disks[1].settle()

    def _held(self, cycle: int) -> Moment:
        with (
            blocking.Level(self._server, backend=self.engine, mode=Mode.SERVER, **OPTIONS) as server,
            blocking.Level(self._store, backend=self.engine, mode=Mode.CLIENT, **OPTIONS) as client,
        ):
            client.sync(server)
            data = dict(client.query())
            assert data == dict(server.query()), f"in cycle {cycle} the client and its server differ"
            assert client.cid == server.cid
        check(self._server, self.engine)
        check(self._store, self.engine)
        return Moment({key: value for key, value in data.items() if not key.startswith(OTHERS)})
