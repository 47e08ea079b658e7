"""What a process of these services needs - database connections, open files - and whether it has it.

The two failures that hit large sites again and again are "QueuePool limit reached" and "Too many open files": both are
computed here, before the first request.
"""

import resource
from collections.abc import Iterable, Mapping

import structlog

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError

log = structlog.get_logger(__name__)

# waitress: a socket each, and a file where a body or an answer is too large for memory.
_API_CONNECTIONS, _FILES_OF_A_CONNECTION = 500, 3
_METADATA_CONNECTIONS, _METADATA_THREADS = 500, 4
# The crew's threads that wait for guests, and the most that it has for boots.
_WAITERS, _MAX_BOOTS = 16, 64
# A worker downloads an image or runs a program: a socket, files, pipes.
_FILES_OF_A_WORKER = 8
# Standard streams, log, libraries, /proc, the interpreter's own.
_FILES_OF_A_PROCESS = 64
_FILES_OF_SQLITE = 3
# Beyond the need: a soft limit of millions makes programs slow that close every file they might have.
_PLENTY = 65536


def database_threads(name: str, settings: Settings) -> int:
    """How many threads of a service may want a database connection at once."""
    return {
        "api": settings.api.threads,
        "scheduler": settings.scheduler.consumers,
        "controller": 6,  # events, heartbeats, dead letters, sweep, queues, purge
        "network": 2 if settings.network.driver == "none" else 3,  # the queue, the auditor's calls, the sweep
        "metadata": 0 if settings.network.driver == "none" else _METADATA_THREADS,
    }.get(name, 0)


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
        found["database"] = pool * (_FILES_OF_SQLITE if sqlite else 1)
    if not settings.embedded_bus:
        # The process's publisher and its answers; each consumer has a connection, and one to publish.
        found["bus"] = 2 + 2 * sum(_consumers(n, settings) for n in names)
    for name in names:
        if files := _own_files(name, settings):
            found[name] = files
    return found


def check_open_files(names: Iterable[str], settings: Settings) -> None:
    """Raise the soft limit of open files to what these services need, as far as the hard one allows.

    Raises:
        ConfigurationError: the hard limit is too low; says how many are missing.
    """
    needs = open_files(names, settings)
    needed = sum(needs.values())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _covers(soft, needed):
        return
    if not _covers(hard, needed):
        raise ConfigurationError(reason=missing_files(needs, hard))
    wanted = max(needed, _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    log.info("limit of open files raised", was=soft, now=wanted, needed=needed)


def missing_files(needs: Mapping[str, int], hard: int) -> str:
    """What to say where the hard limit is too low; empty where it is not."""
    needed = sum(needs.values())
    if _covers(hard, needed):
        return ""
    enough = 1 << (needed - 1).bit_length()
    return (
        f"this process may need {needed} open files ({_shares(needs)}), its hard limit is {hard}: {needed - hard} are "
        f"missing. Set LimitNOFILE={enough} in its systemd unit, or `ulimit -n {enough}` before it is started"
    )


def check_at_start(names: Iterable[str], settings: Settings) -> None:
    """Whether a process of these services has all it may need. Raises ConfigurationError."""
    names = list(names)
    check_pool(names, settings)
    check_open_files(names, settings)


def _consumers(name: str, settings: Settings) -> int:
    return {"scheduler": settings.scheduler.consumers, "controller": 3, "network": 2, "compute": 1}.get(name, 0)


def _own_files(name: str, settings: Settings) -> int:
    compute = settings.compute
    match name:
        case "api":  # connections, the socket that listens, the trigger, image files that are sent
            return _API_CONNECTIONS * _FILES_OF_A_CONNECTION + 3 + settings.api.threads
        case "metadata":
            return 0 if settings.network.driver == "none" else _METADATA_CONNECTIONS + 3
        case "network":
            return 0 if settings.network.driver == "none" else 2 * _FILES_OF_A_WORKER
        case "compute":
            simulated = compute.driver == "simulated"
            boots = min(compute.workers * (compute.simulated_hosts if simulated else 1), _MAX_BOOTS)
            # Journal, simulated hardware; simulated hosts share both, and need no file of their own.
            return 2 * _FILES_OF_SQLITE + (0 if simulated else (boots + _WAITERS) * _FILES_OF_A_WORKER)
    return 0


def _covers(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


def _shares(needs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in needs.items())
