"""What a route needs of those who call it."""

from __future__ import annotations

import enum


class Scope(enum.Enum):
    """The right that a route asks for. Every route declares one: see `routing.ScopedRoute`."""

    #: Anybody.
    OPEN = "open"
    #: A token that may read every database, all of it.
    OPERATE = "operate"
    #: A token that may read the database in question.
    READ = "read"
    #: A token that may write to it.
    WRITE = "write"
