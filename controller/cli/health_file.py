"""A file in which each running process says how it is, for `pileus status` and `pileus check` on the same machine.

The lock on it, not its text, says that the process lives.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import structlog

from controller.conf.settings import Settings
from controller.health import Problem
from controller.locks import try_lock

log = structlog.get_logger(__name__)

# RuntimeDirectory= of the units: a folder for each service below it.
_OF_UNITS = Path("/run/pileus")
_NAME = "health.json"


@dataclass(frozen=True)
class Process:
    """What one process says of itself. ``ready``: all its services have once been well since it started."""

    pid: int
    services: tuple[str, ...]
    ready: bool
    problems: tuple[Problem, ...]


class HealthFile:
    """This process's."""

    def __init__(self, file: IO[str] | None, cloud_id: str, services: Sequence[str]) -> None:
        self._file = file
        self._cloud_id = cloud_id
        self._services = services

    def write(self, problems: Sequence[Problem], *, ready: bool) -> None:
        """Say how the process is; a full disk does not stop the service."""
        if self._file is None:
            return
        document = {
            "cloud_id": self._cloud_id,
            "pid": os.getpid(),
            "services": list(self._services),
            "ready": ready,
            "problems": [asdict(p) for p in problems],
        }
        try:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(document) + "\n")
            self._file.flush()
        except OSError as error:
            log.warning("the health file cannot be written", reason=str(error))


@contextmanager
def health_file(settings: Settings, services: Sequence[str]) -> Iterator[HealthFile]:
    """The file until the block ends; where none can be made, nothing is written and `status` does not see us."""
    path = _path(settings, services)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        log.info("no health file", reason=str(error))
        yield HealthFile(None, "", ())
        return
    with file:
        if not try_lock(file):  # a second process of this service on this machine
            yield HealthFile(None, "", ())
            return
        yield HealthFile(file, settings.general.cloud_id, services)
        with suppress(OSError):
            path.unlink()


def processes(settings: Settings) -> list[Process]:
    """The processes of this cloud that run on this machine and say how they are."""
    folders = [_OF_UNITS, settings.state_dir / "run" / "services"]
    found = [_read(path, settings.general.cloud_id) for folder in folders for path in sorted(_files(folder))]
    return [p for p in found if p is not None]


def _path(settings: Settings, services: Sequence[str]) -> Path:
    if given := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(given) / _NAME
    return settings.state_dir / "run" / "services" / (services[0] if len(services) == 1 else "all") / _NAME


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.glob(f"*/{_NAME}"))
    except OSError:
        return []


def _read(path: Path, cloud_id: str) -> Process | None:
    try:
        with path.open() as file:
            if not try_lock(file, shared=True):
                return _parsed(file.read(), cloud_id)
    except OSError:
        return None
    return None  # the process that wrote it has ended


def _parsed(text: str, cloud_id: str) -> Process | None:
    try:
        document = json.loads(text)
        if document["cloud_id"] != cloud_id:
            return None
        problems = tuple(Problem(**p) for p in document["problems"])
        return Process(int(document["pid"]), tuple(document["services"]), bool(document["ready"]), problems)
    except (ValueError, KeyError, TypeError):  # it is being written just now, or another release's
        return None
