"""How all processes log: one event a line on standard error, times in UTC, no control characters.

What is logged (never SQL, parameters or passwords) is the business of whoever logs it.
"""

from __future__ import annotations

import logging
import sys
import time

# They log a line a request, with its address; what they send is not ours to show.
QUIET = ("httpx", "httpcore", "uvicorn.access", "asyncio")
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s {process} %(name)s %(message)s"
# A client chooses its application name; a newline or an escape sequence in it must not forge a log line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029)}


class OneLine(logging.Formatter):
    """Escapes control characters in the message; a traceback below it keeps its lines."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(_CONTROL)
        return super().formatMessage(record)


def configure(process: str, level: str = "info") -> None:
    """Called once by each process, `process` being what it is: `supervisor`, `control`, `worker-0`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(_FORMAT.format(process=process)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Another level for a process that runs."""
    logging.getLogger().setLevel(level.upper())
