"""What a process of some services needs - database connections, open files - and whether it has it.

The two failures that hit large sites again and again are "QueuePool limit reached" and "Too many open files": both are
computed here, before the first request.
"""

import resource
from collections.abc import Iterable, Mapping

import structlog

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.installed_services import needs
from controller.needs import FILES_OF_SQLITE

log = structlog.get_logger(__name__)

# Standard streams, log, libraries, /proc, the interpreter's own.
_FILES_OF_A_PROCESS = 64
# Beyond the need: a soft limit of millions makes programs slow that close every file they might have.
_PLENTY = 65536


def database_threads(name: str, settings: Settings) -> int:
    """How many threads of a service may want a database connection at once."""
    return needs(name, settings).database_threads


def connections(names: Iterable[str], settings: Settings) -> int:
    """How many database connections one process of these services opens at most, that of its health included."""
    pool = settings.database.pool_size + settings.database.max_overflow
    threads = sum(database_threads(n, settings) for n in names)
    return min(pool, threads) + 1 if threads else 0


def check_pool(names: Iterable[str], settings: Settings) -> None:
    """No thread of this process shall ever wait for a connection.

    Raises:
        ConfigurationError: it could; says what is needed.
    """
    threads = {n: t for n in names if (t := database_threads(n, settings))}
    needed = sum(threads.values())
    conf = settings.database
    if needed > conf.pool_size + conf.max_overflow:
        raise ConfigurationError(
            reason=f"[database] pool_size {conf.pool_size} and max_overflow {conf.max_overflow} give one process "
            f"{conf.pool_size + conf.max_overflow} connections; {needed} of its threads use the database "
            f"({_shares(threads)}): set pool_size to {needed - conf.max_overflow} or more"
        )


def open_files(names: Iterable[str], settings: Settings) -> Mapping[str, int]:
    """How many files one process of these services may have open at once, by what they are for."""
    names = list(names)
    found = {"the process": _FILES_OF_A_PROCESS}
    sqlite = settings.database_url.startswith("sqlite")
    pool = settings.database.pool_size + settings.database.max_overflow
    if any(database_threads(n, settings) for n in names):
        found["database"] = pool * (FILES_OF_SQLITE if sqlite else 1)
    if not settings.embedded_bus:
        # The process's publisher and its answers; each consumer has a connection, and one to publish.
        found["bus"] = 2 + 2 * sum(needs(n, settings).consumers for n in names)
    for name in names:
        if files := needs(name, settings).files:
            found[name] = files
    return found


def check_open_files(names: Iterable[str], settings: Settings) -> None:
    """Raise the soft limit of open files to what these services need, as far as the hard one allows.

    Raises:
        ConfigurationError: the hard limit is too low; says how many are missing.
    """
    by_use = open_files(names, settings)
    needed = sum(by_use.values())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _covers(soft, needed):
        return
    if not _covers(hard, needed):
        raise ConfigurationError(reason=missing_files(by_use, hard))
    wanted = max(needed, _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    log.info("limit of open files raised", was=soft, now=wanted, needed=needed)


def missing_files(by_use: Mapping[str, int], hard: int) -> str:
    """What to say if the hard limit is too low; empty if it is not."""
    needed = sum(by_use.values())
    if _covers(hard, needed):
        return ""
    enough = 1 << (needed - 1).bit_length()
    return (
        f"this process may need {needed} open files ({_shares(by_use)}), its hard limit is {hard}: {needed - hard} are "
        f"missing. Set LimitNOFILE={enough} in its systemd unit, or `ulimit -n {enough}` before it is started"
    )


def check_at_start(names: Iterable[str], settings: Settings) -> None:
    """Whether a process of these services has all it may need. Raises ConfigurationError."""
    names = list(names)
    check_pool(names, settings)
    check_open_files(names, settings)


def _covers(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


def _shares(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
