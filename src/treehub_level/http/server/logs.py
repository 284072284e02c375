"""Log lines of a server: one for each request, and of its life, as text or as JSON.

Each record becomes exactly one line, with all controls and invisible characters escaped, so that no
client can forge a line or reach the terminal of its reader. The passwords of URLs are left out.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Literal

from ...escapes import escape_unsafe
from ...redaction import redact_text

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

#: The most characters of a text line, and of the message and the traceback of a line in JSON,
#: without the ellipsis of a shortened one.
MAX_LOG_LINE: Final = 1000

#: The loggers of a server. uvicorn's access log is off, since its lines contain the URL, and so
#: keys. What libraries say below a warning is no concern of an operator.
_OWN_LOGGER: Final = "treehub_level"
_LIBRARIES: Final = ("uvicorn", "asyncio")

#: The lines of requests. It has a logger of its own, so that they can be turned off.
ACCESS_LOGGER: Final = "treehub_level.http.access"

#: The attribute of a log record that holds the event and its fields.
_FIELDS: Final = "treehub_level_fields"


def log_event(logger: logging.Logger, level: int, event: str, message: str, fields: Mapping[str, Any]) -> None:
    """Log a message as text; for the format JSON the event and its fields besides.

    Args:
        logger: The logger.
        level: The level, such as ``logging.INFO``.
        event: The stable name of the event.
        message: The message, which a line of text has alone.
        fields: Values that JSON can hold. No secrets, and none of unbounded length. A ``message``
            among them takes the place of the one for text.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message, extra={_FIELDS: {"event": event, **fields}})


class OneLineFormatter(logging.Formatter):
    """A log formatter that escapes controls and invisible characters, and shortens long records."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of at most `MAX_LOG_LINE` characters and an ellipsis."""
        return _shortened(escape_unsafe(redact_text(super().format(record))))


class JSONFormatter(logging.Formatter):
    """A log formatter that writes one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a JSON object with ``time``, ``level``, ``logger`` and ``message``.

        An event has ``event`` and its fields besides; an error with a traceback ``exception``.
        """
        fields: Mapping[str, Any] = getattr(record, _FIELDS, {})
        document = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shortened(redact_text(record.getMessage())),
            **fields,
        }
        if record.exc_info:
            document["exception"] = _shortened(redact_text(self.formatException(record.exc_info)))
        # The escapes of JSON: a parser reads them as the characters that they stand for.
        return escape_unsafe(json.dumps(document, ensure_ascii=False, default=str))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LOG_LINE else text[:MAX_LOG_LINE] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The settings of a server's log.

    Attributes:
        format: The format of the lines.
        level: The lowest level of the server's own lines. Requests are logged at ``info``.
        access_log: False to log no requests.
    """

    format: LogFormat = "text"
    level: LogLevel = "info"
    access_log: bool = True


def log_to_stderr(settings: LogSettings) -> None:
    """Log to stderr: the server from a level up, and libraries from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    text_formatter = OneLineFormatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JSONFormatter() if settings.format == "json" else text_formatter)
    level = getattr(logging, settings.level.upper())
    for name in (_OWN_LOGGER, *_LIBRARIES):
        logger = logging.getLogger(name)
        logger.setLevel(level if name == _OWN_LOGGER else max(level, logging.WARNING))
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger(ACCESS_LOGGER).disabled = not settings.access_log
