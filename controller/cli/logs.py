"""Logging of a process: structlog and the libraries' own loggers, one line an event, no secrets."""

import logging
import os
import re
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from controller.conf.settings import Settings

# syslog(3): critical, error, warning, informational; what is less is for debugging.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
MAX_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_SECRET_NAME = re.compile(r"secret|password|token|credential|user_data|private_key", re.IGNORECASE)
# Libraries that tell at INFO what only they want to know.
_QUIET = ("kombu", "amqp", "sqlalchemy", "alembic", "waitress", "werkzeug", "botocore", "urllib3")


def set_up_logging(settings: Settings, file: Path | None = None) -> None:
    """Log to standard error, or to a file of bounded size that also takes what the process prints by itself."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Plain text: the traceback formatters of structlog print local variables, and with them secrets.
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = RotatingStandardStreams(file) if file else logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(settings)],
    )
    handler.setFormatter(formatter if file or not is_journal(sys.stderr) else WithPriority(formatter))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(settings.general.log_level)


def set_level(level: str) -> None:
    """From which level on is logged; may be changed at any time."""
    root = logging.getLogger()
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def hide_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Blank passwords in URLs, and every field whose name says that it is secret."""
    for name, value in event.items():
        if isinstance(value, str) and _SECRET_NAME.search(name):
            event[name] = "***"
        elif isinstance(value, str) and "://" in value:
            event[name] = _CREDENTIALS.sub("***", value)
    return event


def _renderer(settings: Settings) -> Processor:
    if settings.general.log_format == "json":
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(
        colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback, pad_level=False
    )


def is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to the journal of systemd (JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


class WithPriority(logging.Formatter):
    """Each line begins with its priority, as the journal takes it from a stream (sd-daemon(3))."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """All the lines of a record, a traceback's as well."""
        priority = next((p for level, p in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in self._formatter.format(record).splitlines())


class RotatingStandardStreams(RotatingFileHandler):
    """A log file that standard output and error go to as well, so that nothing printed is lost or grows for ever."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(file, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        """Open the file: at first, for each new one, and again after an attempt that failed."""
        opened = super()._open()
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(opened.fileno(), stream)
        return opened
