"""One dnsmasq for each network: started, notified of changes, started again if it died, removed."""

import pwd
import shutil
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import structlog

from controller.conf.settings import Settings
from controller.domain.errors import HostError
from controller.domain.ids import NETWORK, is_id
from controller.processes import end, hang_up, pid_in, runs, started_with
from controller.programs.run import run
from network.dnsmasq import config
from network.dnsmasq import leases as dnsmasq_leases
from network.dnsmasq.files import MAX_ADDITIONS, ServedFiles, Signature, signature
from network.dnsmasq.leases import LeaseFileDamaged, Taken
from network.dnsmasq.release import release
from network.files import replace_if_changed, unchanged
from network.segment import HeldLease, LeaseMark, Segment

log = structlog.get_logger(__name__)

# With 65,000 known MACs it is up at once, and reads them afterwards.
_START_S = 15
# Leases that dnsmasq is asked to forget one by one, each time writing its whole file; of more it is rid by a start.
_RELEASED_SINGLY = 200
_RELEASE_S = 1.0
_LOOK_S = 0.02
_USERS = ("dnsmasq", "nobody")
# However little seems to have changed, all leases of a network are looked at so often.
WHOLE_EVERY_S = 300.0


@dataclass(frozen=True)
class _Known:
    """What a network's dnsmasq serves: its leases by IP, as of a whole look at ``looked_at`` (monotonic) and some
    ``additions`` since then; ``signature`` is that of its files."""

    leases: Mapping[str, HeldLease]
    mark: LeaseMark
    signature: tuple[tuple[str, Signature], ...]
    looked_at: float
    additions: int = 0

    def serves(self, leases: Sequence[HeldLease]) -> bool:
        """Whether it serves these, and no others."""
        return len(leases) == len(self.leases) and all(
            x.ip in self.leases and self.leases[x.ip].is_served_like(x) for x in leases
        )


class Dnsmasq:
    """The dnsmasq processes of this host. Each lives in a session of its own and outlives this service.

    The truth is on the host: files below ``root``, and processes whose command line names such a file.
    """

    def __init__(self, settings: Settings, root: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._root = root
        self._user = ""
        self._monotonic = monotonic
        # What the files of each network hold, where its process has surely read them.
        self._known: dict[str, _Known] = {}
        # What each one remembered when we last looked, and what its file was then.
        self._remembered: dict[str, tuple[Signature, Mapping[str, Taken]]] = {}

    def networks(self) -> set[str]:
        """Networks of which there is anything on this host."""
        if not self._root.is_dir():
            return set()
        return {p.name for p in self._root.iterdir() if is_id(p.name, NETWORK) and p.is_dir()}

    def ensure(self, segment: Segment, leases: Sequence[HeldLease]) -> Set[str]:
        """Make what DHCP and DNS serve equal to the leases, which are all that are held; costs no program when it is
        already so.

        Answers with the addresses that no instance holds and that dnsmasq remembers all the same: it is asked to forget
        them, so mostly there are none.

        Raises:
            HostError: dnsmasq does not start, or a file cannot be written.
            ConfigurationError: see ``config.options``.
        """
        folder = self._root / segment.network_id
        folder.mkdir(mode=0o755, exist_ok=True)
        conf = config.options(segment, self._settings, folder, self._run_as())
        known = self._known.pop(segment.network_id, None)
        files = self._files(folder)
        changed = (known is None or known.signature != files.signature() or not known.serves(leases)) and files.write(
            leases
        )
        argument = _argument(folder)
        pid = pid_in(folder / "pid")
        if (
            pid is None
            or not runs(pid, argument)
            or not unchanged(folder / "dnsmasq.conf", conf)
            or self._has_lost_leases(folder, leases)
            or ((changed or known is None) and not hang_up(pid, argument))
        ):
            self._start(folder, conf, leases)
        left = self._release_left_over(segment, folder, conf, leases)
        additions = known.additions if known is not None and not changed else 0
        by_ip = {lease.ip: lease for lease in leases}
        mark = LeaseMark.of(lease.lease_id for lease in leases)
        self._known[segment.network_id] = _Known(by_ip, mark, files.signature(), self._monotonic(), additions)
        return left

    def extend(self, segment: Segment, new: Sequence[HeldLease], mark: LeaseMark) -> bool:
        """Serve these leases as well, of a network that is otherwise as ``ensure`` left it; ``mark`` is that of all
        that it has now. False: more than that has changed, so nothing was done, and ``ensure`` is to look.

        Raises:
            HostError, OSError, ConfigurationError: see ``ensure``.
        """
        known = self._known.get(segment.network_id)
        if known is None or self._monotonic() - known.looked_at > WHOLE_EVERY_S:
            return False
        folder = self._root / segment.network_id
        files = self._files(folder)
        added = [lease for lease in new if lease.ip not in known.leases]
        if (
            any(not known.leases[x.ip].is_served_like(x) for x in new if x.ip in known.leases)
            or known.mark + LeaseMark.of(lease.lease_id for lease in added) != mark
            or known.signature != files.signature()
            or not self._is_as_left(segment, folder, list(known.leases.values()))
        ):
            return False
        if added:
            if known.additions == MAX_ADDITIONS:
                return False
            del self._known[segment.network_id]  # until all is written
            files.add(known.additions + 1, added)
            by_ip = {**known.leases, **{lease.ip: lease for lease in added}}
            additions = known.additions + 1
            self._known[segment.network_id] = _Known(by_ip, mark, files.signature(), known.looked_at, additions)
        return True

    def _is_as_left(self, segment: Segment, folder: Path, leases: Sequence[HeldLease]) -> bool:
        """Whether its process runs with the options that it ought to have, and remembers what it did."""
        pid = pid_in(folder / "pid")
        return (
            pid is not None
            and runs(pid, _argument(folder))
            and unchanged(folder / "dnsmasq.conf", config.options(segment, self._settings, folder, self._run_as()))
            and not self._has_lost_leases(folder, leases)
        )

    def _files(self, folder: Path) -> ServedFiles:
        network = self._settings.network
        return ServedFiles(folder, domain=network.dns_domain, lease_s=network.lease_s)

    def remove(self, network_id: str) -> None:
        """End the network's process and remove its files."""
        folder = self._root / network_id
        self._end(_argument(folder))
        shutil.rmtree(folder, ignore_errors=True)
        self._known.pop(network_id, None)
        self._remembered.pop(network_id, None)

    def remove_all(self) -> None:
        """End every process whose files are below our folder, known or not."""
        self._end(f"--conf-file={self._root}/")
        for network_id in self.networks():
            shutil.rmtree(self._root / network_id, ignore_errors=True)
        self._known.clear()
        self._remembered.clear()

    def _start(self, folder: Path, conf: str, leases: Sequence[HeldLease]) -> None:
        """Configuration and leases are written while none runs: what runs has always read what is there."""
        argument = _argument(folder)
        self._end(argument)
        replace_if_changed(folder / "dnsmasq.conf", conf)
        taken, lease_s = dnsmasq_leases.salvage(folder / "leases"), self._settings.network.lease_s
        replace_if_changed(folder / "leases", dnsmasq_leases.rebuilt(taken, leases, lease_s, time.time()))
        (folder / "pid").unlink(missing_ok=True)
        run([self._settings.network.dnsmasq, argument], timeout_s=_START_S)
        pid = pid_in(folder / "pid")
        if pid is None or not runs(pid, argument):
            raise HostError(what="Starting dnsmasq", reason=f"it ended at once, see {folder / 'log'}")
        log.info("dnsmasq started", network=folder.name, pid=pid)

    def _look(self, folder: Path) -> Mapping[str, Taken]:
        """What dnsmasq remembers; not read again while the file is the same. Raises LeaseFileDamaged."""
        seen = signature(folder / "leases")
        before = self._remembered.get(folder.name)
        if before is not None and before[0] == seen and seen[0]:
            return before[1]
        found = dnsmasq_leases.read(folder / "leases")
        self._remembered[folder.name] = (seen, found)
        return found

    def _has_lost_leases(self, folder: Path, leases: Sequence[HeldLease]) -> bool:
        """Whether the file of a running dnsmasq was damaged or emptied. It would not notice before its next
        start, and forget the leases then."""
        before = self._remembered.get(folder.name)
        try:
            lost = not self._look(folder) and before is not None and _are_in_use(before[1], leases)
        except LeaseFileDamaged as error:
            log.warning("the file of leases is damaged and made again", network=folder.name, reason=str(error))
            return True
        if lost and before is not None:
            log.warning("the file of leases was emptied and is made again", network=folder.name)
            self._remembered[folder.name] = before  # until it has been made again, the next look finds the same
        return lost

    def _release_left_over(self, segment: Segment, folder: Path, conf: str, leases: Sequence[HeldLease]) -> Set[str]:
        """Have dnsmasq forget leases that no instance holds; answers with the addresses that it still remembers."""
        left_over = dnsmasq_leases.left_over(self._look(folder), leases)
        if len(left_over) > _RELEASED_SINGLY:
            self._start(folder, conf, leases)
            left_over = dnsmasq_leases.left_over(self._look(folder), leases)
        if left_over:
            try:
                release(segment.bridge, segment.gateway, left_over)
            except OSError as error:
                log.warning("leases are not released", network=folder.name, count=len(left_over), reason=str(error))
                return {taken.ip for taken in left_over}
        deadline = time.monotonic() + _RELEASE_S
        while left_over and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            left_over = dnsmasq_leases.left_over(self._look(folder), leases)
        return {taken.ip for taken in left_over}

    def _end(self, prefix: str) -> None:
        for pid, argument in started_with(self._settings.network.dnsmasq, prefix).items():
            end(pid, argument)

    def _run_as(self) -> str:
        """The user that dnsmasq runs as; root only if no other user can reach its files, which it reads repeatedly."""
        if not self._user:
            folders = [self._root, *self._root.parents]
            reachable = all(f.stat().st_mode & 0o001 for f in folders)
            self._user = next((u for u in _USERS if reachable and _exists(u)), "root")
            if self._user == "root":
                log.warning("dnsmasq runs as root: other users cannot reach its folder", folder=str(self._root))
        return self._user


def _argument(folder: Path) -> str:
    return f"--conf-file={folder / 'dnsmasq.conf'}"


def _are_in_use(taken: Mapping[str, Taken], leases: Sequence[HeldLease]) -> bool:
    now = time.time()
    return any(
        lease.ip in taken and taken[lease.ip].mac == lease.mac and taken[lease.ip].expires_at > now for lease in leases
    )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
