"""A to-do list in a terminal that works offline, and shows the changes of others as they come.

    treehub-level serve stores --create todo            # once, anywhere
    python examples/todo.py ~/.todo http://127.0.0.1:8421/v1/todo

Without the URL, and while the server is away, everything works: changes are sent later. Two people
may edit one entry at the same time: `merge.fields` keeps the changes of both. A process that is
killed loses nothing that it has shown. The token of a server goes into TREEHUB_LEVEL_TOKEN.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack

from treehub_level import MISSING, Change, LevelError, events, merge
from treehub_level.blocking import Level
from treehub_level.http.blocking import RemoteServer


class TodoList:
    """The commands. Their numbers are those of the list that was shown last."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._shown: list[str] = []

    def show(self) -> None:
        entries = self._level.query(prefix="todo/")
        self._shown = [key for key, _ in entries]
        print(*(f"{number:>3} {text_of(entry)}" for number, (_, entry) in enumerate(entries, 1)), sep="\n")
        print(f"{len(entries)} entries, {self._level.pending()} changes to send")

    def run(self, line: str) -> None:
        match line.split(maxsplit=2):
            case ["add", *words] if words:
                key = f"{time.time_ns():020}-{secrets.token_hex(4)}"  # in the order of their making
                self._level.put(f"todo/{key}", {"text": " ".join(words), "done": False})
            case ["done" | "open" as verb, number]:
                self._change(number, done=verb == "done")
            case ["edit", number, text]:
                self._change(number, text=text)
            case ["rm", number]:
                self._level.delete(self._key(number))
            case ["list"] | []:
                pass
            case _:
                raise ValueError("add TEXT, done N, open N, edit N TEXT, rm N, list, quit")
        self.show()

    def _change(self, number: str, **fields: str | bool) -> None:
        self._level.update(self._key(number), lambda entry: {**entry, **fields} if entry else MISSING)

    def _key(self, number: str) -> str:
        if not number.isdecimal() or not 0 < int(number) <= len(self._shown):
            raise ValueError(f"there is no entry {number} in the list above")
        return self._shown[int(number) - 1]


def text_of(entry: dict[str, object]) -> str:
    text = "".join(character if character.isprintable() else "?" for character in str(entry.get("text")))
    return f"[{'x' if entry.get('done') else ' '}] {text}"


def show_change(change: Change) -> None:
    if change.origin == "remote":
        print(f"\n  <- {'removed' if change.deleted else text_of(change.value)}", flush=True)


def show_events(happened: Iterable[events.Event]) -> None:
    for event in happened:
        match event:
            case events.Pushed(count=count):
                print(f"\n  -> {count} sent", flush=True)
            case events.StateChanged(new="offline"):
                print("\n  offline: changes are kept here", flush=True)
            case events.StateChanged(new="needs_auth"):
                print("\n  the server refuses the token in TREEHUB_LEVEL_TOKEN", flush=True)
            case events.Conflicted(conflict) | events.Refused(conflict):
                print(f"\n  not taken by the server: {conflict.local.value!r} ({conflict.reason})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A to-do list that works offline.")
    parser.add_argument("store", help="the folder of the list")
    parser.add_argument("url", nargs="?", help="the database on a server: http(s)://HOST/v1/NAME")
    options = parser.parse_args()
    try:
        with ExitStack() as stack:
            level = stack.enter_context(Level(options.store, mode=Level.CLIENT, keep_base=True))
            level.on_change(show_change, prefix="todo/")
            session = None
            if options.url:
                server = stack.enter_context(RemoteServer(options.url, token=os.environ.get("TREEHUB_LEVEL_TOKEN")))
                session = level.live(server, on_conflict=merge.fields)
                threading.Thread(target=show_events, args=(session.events(),), daemon=True).start()
                stack.enter_context(session)
            todo = TodoList(level)
            todo.run("list")
            while (line := input("> ")) != "quit":
                try:
                    todo.run(line)
                except ValueError as error:
                    print(error)
                if session is not None:
                    session.resume()  # tries again at once if the server was away
    except (EOFError, KeyboardInterrupt):
        print()
    except (LevelError, ValueError) as error:
        sys.exit(f"todo: {error}")


if __name__ == "__main__":
    main()
