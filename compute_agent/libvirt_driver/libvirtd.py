"""The cloud's private libvirtd: in its own mount namespace, beside any other libvirt of the machine.

It and its guests outlive the agent: the agent may be restarted, upgraded or killed at any time. Where systemd runs,
they are a unit of their own (``guest_unit``).
"""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from compute_agent.errors import HypervisorUnreachable
from compute_agent.libvirt_driver import guest_unit
from compute_agent.libvirt_driver.guest_unit import GuestUnit
from compute_agent.libvirt_driver.interrupted_starts import forget_interrupted_starts
from controller import processes
from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError, DriverError, HostError
from controller.locks import lock

log = structlog.get_logger(__name__)

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
# sun_path of unix(7) holds 108 bytes with its final zero.
_SOCKET_PATH_BYTES = 107
_SOCKET = "libvirt/libvirt-sock"
# Folder below <state>/libvirt -> what libvirtd and QEMU see there.
_PRIVATE = {
    "run": "/run",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "etc": "/etc/libvirt",
}
# Constant text: paths come as arguments only. Ends as tini, so the pid is the one that was started.
# A machine that never had a libvirt of its own lacks the folders that ours has in their place.
_ENTER = """
exec >"$1" 2>&1
echo $$ >"$2"
shift 2
while [ "$1" != -- ]; do
    [ -e "$2" ] || mkdir -p -m 755 "$2"
    mount --bind "$1" "$2"
    shift 2
done
shift
exec "$@"
"""


def socket_uri(settings: Settings) -> str:
    """The libvirt URI of the private daemon."""
    return f"qemu+unix:///system?socket={_socket(settings)}"


def uri(settings: Settings) -> str:
    """The libvirt URI to use: the configured one, else the private daemon's."""
    return settings.compute.libvirt_uri or socket_uri(settings)


def is_private(settings: Settings) -> bool:
    """Whether the cloud has a libvirtd of its own."""
    return not settings.compute.libvirt_uri


def guest_logs(settings: Settings) -> Path:
    """The folder where libvirt keeps what each QEMU has written, a file for each guest's name."""
    return (_root(settings) / "log" if is_private(settings) else Path("/var/log/libvirt")) / "qemu"


def ensure(settings: Settings, answers: Callable[[str], bool]) -> None:
    """Start the private libvirtd unless it answers; returns once it does.

    Raises:
        HypervisorUnreachable: it ended, or does not answer in time. DriverError: it is not installed.
    """
    if not is_private(settings) or answers(socket_uri(settings)):
        return
    with _locked(settings):
        if answers(socket_uri(settings)):
            return
        _end(settings)
        forget_interrupted_starts(_root(settings) / "run/libvirt/qemu")
        ended = _start(settings)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(socket_uri(settings)):
            if how := ended():
                reason = f"libvirtd ended ({how}): {_last_words(settings)}"
                raise HypervisorUnreachable(what="Starting libvirtd", reason=reason)
            if time.monotonic() > deadline:
                raise HypervisorUnreachable(what="Starting libvirtd", reason=f"no answer after {START_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)
        log.info("libvirtd started", pid=pid(settings))


def stop(settings: Settings) -> None:
    """End the private libvirtd; guests that still run go on. Nothing running is fine."""
    if not is_private(settings) or not _root(settings).is_dir():
        return
    with _locked(settings):
        _end(settings)
        if guest_unit.is_available(_root(settings)):
            GuestUnit(settings.general.cloud_id).remove()
        short = _short_run(settings)
        if short.is_symlink():
            short.unlink()


def pid(settings: Settings) -> int | None:
    """The process id of the private libvirtd's supervisor; None when it does not run."""
    return _running(settings, _pid_file(settings))


def _running(settings: Settings, pid_file: Path) -> int | None:
    """The process of this file, if it is ours: its number may have gone to another process."""
    return processes.running(pid_file, str(_config(settings)))


def _root(settings: Settings) -> Path:
    return settings.state_dir.absolute() / "libvirt"


def _pid_file(settings: Settings) -> Path:
    return _root(settings) / "libvirtd.pid"


def _config(settings: Settings) -> Path:
    return _root(settings) / "etc" / "libvirtd.conf"


def _socket(settings: Settings) -> Path:
    path = _root(settings) / "run" / _SOCKET
    return path if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES else _short_run(settings) / _SOCKET


def _short_run(settings: Settings) -> Path:
    """A short way to a run folder whose own path is too long for a socket."""
    return Path("/run") / f"pileus-{settings.general.cloud_id}"


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One process at a time starts or stops the daemon."""
    root = _root(settings)
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        if not lock(file, START_TIMEOUT_S + STOP_TIMEOUT_S, poll_s=_POLL_S):
            raise HypervisorUnreachable(what="Starting libvirtd", reason=f"another process holds {file.name}")
        yield


def _start(settings: Settings) -> Callable[[], str]:
    """Start it; answers with a function that says how it has ended, and nothing while it runs.

    Raises:
        DriverError: it is not installed.
    """
    unshare, tini, shell = _program("unshare"), _program("tini"), _program("sh")
    daemon = _program("libvirtd")
    _prepare(settings)
    mounts = {_root(settings) / name: target for name, target in _PRIVATE.items()}
    mounts |= _accounts(_root(settings) / "etc")
    binds = [str(p) for pair in mounts.items() for p in pair]
    argv = [unshare, "--mount", "--propagation", "slave", "--", shell, "-ec", _ENTER, "pileus-libvirtd"]
    argv += [str(_start_log(settings)), str(_pid_file(settings)), *binds]
    # A subreaper: without one each destroy waits seconds for a zombie where pid 1 reaps slowly.
    argv += ["--", tini, "-s", "--", daemon, "--config", str(_config(settings))]
    _start_log(settings).write_text("")
    if guest_unit.is_available(_root(settings)):
        unit = GuestUnit(settings.general.cloud_id)
        unit.start(argv)
        return unit.ended
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, cwd="/", start_new_session=True)

    def ended() -> str:
        status = process.poll()
        return "" if status is None else f"status {status}"

    return ended


def _prepare(settings: Settings) -> None:
    root = _root(settings)
    if root.is_relative_to("/run") or root.resolve().is_relative_to("/run"):
        raise ConfigurationError(reason="state_dir must not lie below /run: libvirtd gets a /run of its own")
    for name in _PRIVATE:
        (root / name).mkdir(mode=0o755, exist_ok=True)
    if _socket(settings).is_relative_to(_short_run(settings)):
        short = _short_run(settings)
        if short.is_symlink():
            short.unlink()
        short.symlink_to(root / "run")
    _config(settings).write_text(_libvirtd_conf(settings))
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF)


def _accounts(folder: Path) -> dict[Path, str]:
    """Debian's libvirtd ends where its user is not known, even when it is not to be used."""
    mounts = {}
    for name, line in (
        ("passwd", f"{_QEMU_USER}:x:64055:64055::/nonexistent:/usr/sbin/nologin"),
        ("group", f"{_QEMU_USER}:x:64055:"),
    ):
        known = Path("/etc", name).read_text()
        if f"\n{_QEMU_USER}:" not in known:
            (folder / name).write_text(f"{known.rstrip()}\n{line}\n")
            mounts[folder / name] = f"/etc/{name}"
    return mounts


def _libvirtd_conf(settings: Settings) -> str:
    # The same daemon has the same UUID after a restart; two daemons on one machine have two, or cannot migrate.
    host_uuid = uuid.uuid5(uuid.NAMESPACE_OID, f"{settings.general.cloud_id} {uuid.getnode()} {_root(settings)}")
    return f"""\
# Written by pileus at each start of this libvirtd.
listen_tls = 0
listen_tcp = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
host_uuid = "{host_uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


_QEMU_USER = "libvirt-qemu"
_QEMU_CONF = """\
# Written by pileus at each start of this libvirtd.
# root: /dev/kvm may be root's only, and then another user's QEMU is probed anew for each guest.
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        package = {"libvirtd": "libvirt-daemon", "tini": "tini"}.get(name, "util-linux")
        reason = f"{name} is not installed (Debian package {package})"
        raise DriverError(what="Starting libvirtd", reason=reason)
    return found


def _end(settings: Settings) -> None:
    # The supervisor passes SIGTERM on and ends with the daemon; the daemon may also have outlived it.
    supervisor, daemon = _pid_file(settings), _root(settings) / "run" / "libvirtd.pid"
    for pid_file in (supervisor, daemon):
        if _ends(settings, pid_file, signal.SIGTERM):
            continue
        if not _ends(settings, daemon, signal.SIGKILL) or not _ends(settings, pid_file, signal.SIGKILL):
            raise DriverError(what="Stopping libvirtd", reason="it cannot be killed")
    _pid_file(settings).unlink(missing_ok=True)


def _ends(settings: Settings, pid_file: Path, order: signal.Signals) -> bool:
    """Send the signal; whether the process is gone in time."""
    pid = _running(settings, pid_file)
    if pid is None:
        return True
    try:
        processes.end(pid, str(_config(settings)), STOP_TIMEOUT_S, [order])
    except HostError:
        return False
    return True


def _start_log(settings: Settings) -> Path:
    return _root(settings) / "log" / "start.log"


def _last_words(settings: Settings) -> str:
    text = _start_log(settings).read_text(errors="replace")
    return " ".join(text.split())[-300:] or "no message"
