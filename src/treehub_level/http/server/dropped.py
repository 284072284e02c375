"""`DroppedDatabase`: a database that was dropped, and can be restored for a day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from ...engine.clock import utc_text
from .catalog import DATABASE_NAME

#: The time for which a dropped database is kept.
KEEP: Final = timedelta(days=1)

#: The name under which a catalog stores a dropped database: the time in UTC, and the name.
_STORED: Final = re.compile(rf"([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}})Z-({DATABASE_NAME.pattern})")
_TIME: Final = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, slots=True)
class DroppedDatabase:
    """A database that was dropped.

    Attributes:
        name: The name that it had.
        dropped_at: The time at which it was dropped.
    """

    name: str
    dropped_at: datetime

    @property
    def removed_at(self) -> datetime:
        """The time from which on a server, or the next command, removes it for good."""
        return self.dropped_at + KEEP

    @property
    def stored_name(self) -> str:
        """The name under which a catalog stores it. It is not a valid name of a database."""
        return f"{self.dropped_at:{_TIME}}Z-{self.name}"

    @classmethod
    def parse(cls, stored_name: str) -> DroppedDatabase | None:
        """Return the database of a stored name; ``None`` for any other name."""
        found = _STORED.fullmatch(stored_name)
        if found is None:
            return None
        try:
            dropped_at = datetime.strptime(found[1], _TIME)
        except ValueError:  # the 31st of February
            return None
        return cls(found[2], dropped_at.replace(tzinfo=timezone.utc))

    def document(self) -> dict[str, str]:
        """Return the database as a JSON object."""
        times = {"dropped_at": self.dropped_at, "removed_at": self.removed_at}
        return {"name": self.name, **{key: utc_text(time) for key, time in times.items()}}
