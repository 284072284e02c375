"""The attacks, one in each module. A module has the name of its attack, and defines `ATTACK`."""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module


@dataclass(frozen=True)
class Target:
    """A server under attack.

    Attributes:
        port: The port on 127.0.0.1.
        token: A token for the database ``notes`` that may only read, unless the attack asks for one
            that may write.
    """

    port: int
    token: str


@dataclass(frozen=True)
class Attack:
    """A load, the bounds that the server must keep meanwhile, and its control.

    Attributes:
        run: Sends the load until it is cancelled. It runs in a process of its own.
        memory: The most memory, in MiB, by which the server may grow.
        seed: The number of records in the database ``notes``.
        record_bytes: The size of each of these records, in bytes.
        databases: The number of further databases, ``other-0`` and so on, which the token of the
            attacker may read.
        arguments: Further arguments of ``treehub-level serve``.
        write: True if the token of the attack may write.
        control: Python statements, which end in a semicolon, that remove the defence from the
            server's process. With them, the attack must break one of the bounds.
        tls: True if the server uses TLS.
        control_seconds: The least duration of the control, in seconds, where a bound is broken only
            after a timeout.
    """

    run: Callable[[Target], Awaitable[None]]
    memory: float
    control: str
    seed: int = 100
    record_bytes: int = 1024
    databases: int = 0
    arguments: tuple[str, ...] = field(default=())
    tls: bool = False
    control_seconds: float = 0
    write: bool = False


def names() -> list[str]:
    """Return the names of all attacks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def attack(name: str) -> Attack:
    """Return the attack of a name."""
    found: Attack = import_module(f"{__name__}.{name}").ATTACK
    return found
