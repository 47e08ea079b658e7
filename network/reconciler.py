"""Makes this host's bridges, DHCP, DNS and firewall equal to the rows."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from controller.conf.settings import Settings
from controller.domain.errors import CloudError, ConfigurationError, HostError, Unavailable
from controller.domain.messages import NetworkObservation
from controller.locks import lock
from controller.programs import ip
from network import bridges, forwarding
from network.dnsmasq.server import Dnsmasq
from network.host_side import HostSide, Reconciled
from network.nftables import Firewall, ruleset
from network.observed_state import observe_networks
from network.queries import NewLeases, Rows
from network.segment import Segment

log = structlog.get_logger(__name__)

# The Debian package of each program that is needed.
_PACKAGES = {"ip": "iproute2", "nft": "nftables"}
# Longer than a reconciliation of very many networks takes.
_LOCK_S = 60.0


class NetworkReconciler(HostSide):
    """With Linux bridges, dnsmasq and nftables; one reconciliation at a time, in this process and in others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.state_dir.absolute() / "network"  # dnsmasq goes to /
        self._lock = threading.Lock()
        self._dnsmasq = Dnsmasq(settings, self._root)
        self._firewall = Firewall(settings.general.cloud_id)
        self._kept: set[str] = set()

    def check_machine(self) -> None:
        if os.geteuid() != 0:
            raise ConfigurationError(reason="[network] driver = linux needs root; driver = none is for simulated hosts")
        dnsmasq = self._settings.network.dnsmasq
        for program, package in {**_PACKAGES, dnsmasq: "dnsmasq-base"}.items():
            path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
            if shutil.which(program, path=path) is None:
                raise ConfigurationError(reason=f"the network service needs {program}: apt-get install {package}")
        if bridges.is_host_local(self._settings):
            trunk = self._settings.network.trunk
            reason = f"the kernel has no 802.1Q for {trunk}" if trunk else "[network] trunk is not set"
            log.warning("networks are local to this host: guests on other hosts cannot reach them", reason=reason)

    def reconcile(self, read: Callable[[], Rows], *, verify: bool) -> Reconciled:
        with self._alone():
            # The host first, then the rows: a network that is added in between is not taken for an orphan.
            links = ip.read_links()
            served = self._dnsmasq.networks()
            rows = read()
            self._remove_orphans(links, served, rows)
            try:
                self._ensure_firewall(rows, verify=verify)
            except (HostError, OSError) as error:
                log.exception("the firewall could not be made")
                return Reconciled(rows, {network_id: str(error) for network_id in (*rows.leases, *rows.new)}, {})
            failed: dict[str, str] = {}
            remembered: dict[str, Set[str]] = {}
            stale: set[str] = set()
            for segment in rows.segments:
                network_id = segment.network_id
                try:
                    if network_id in rows.leases:
                        bridges.ensure(segment, self._settings, links)
                        remembered[network_id] = self._dnsmasq.ensure(segment, rows.leases[network_id])
                    elif network_id in rows.new and not self._extend(segment, rows.new[network_id], links):
                        stale.add(network_id)
                except (CloudError, OSError) as error:
                    log.exception("network not reconciled", network=network_id, bridge=segment.bridge)
                    failed[network_id] = str(error)
            return Reconciled(rows, failed, remembered, stale)

    def observed(self, read: Callable[[], Rows]) -> NetworkObservation:
        with self._alone():
            try:
                return observe_networks(self._settings, self._root, read())
            except (HostError, OSError) as error:
                return NetworkObservation(host_side=True, error=str(error))

    def destroy(self) -> None:
        with ExitStack() as steps:  # the last one first; each is done, also after an error of another
            steps.callback(shutil.rmtree, self._root, ignore_errors=True)
            steps.callback(forwarding.restore, self._root)
            steps.callback(self._firewall.remove)
            steps.callback(self._remove_links)
            steps.callback(self._dnsmasq.remove_all)

    def _remove_links(self) -> None:
        with ExitStack() as steps:
            for name in bridges.owned(ip.read_links(), self._settings.general.cloud_id):
                steps.callback(ip.delete, name)

    def _extend(self, segment: Segment, new: NewLeases, links: Mapping[str, ip.Link]) -> bool:
        bridges.ensure(segment, self._settings, links)
        return self._dnsmasq.extend(segment, new.leases, new.mark)

    def _ensure_firewall(self, rows: Rows, *, verify: bool) -> None:
        conf = self._settings.network
        script = ruleset(self._settings.general.cloud_id, rows.segments, metadata_port=conf.metadata_port, nat=conf.nat)
        self._firewall.ensure(script, verify=verify)
        if conf.nat and rows.segments:
            forwarding.switch_on(self._root)
        else:
            forwarding.restore(self._root)

    def _remove_orphans(self, links: Mapping[str, ip.Link], served: set[str], rows: Rows) -> None:
        vlans = {s.vlan for s in rows.segments}
        found = bridges.owned(links, self._settings.general.cloud_id)
        orphans = {name for name, vlan in found.items() if vlan not in vlans}
        busy = {link.master for link in links.values() if link.master and link.name not in found}
        kept = {name for name in orphans if name in busy or links[name].master in busy}
        for network_id in sorted(served - {s.network_id for s in rows.segments}):
            self._try("dnsmasq", network_id, self._dnsmasq.remove)
        for name in sorted(orphans - kept):
            self._try("interface", name, ip.delete)
        if kept != self._kept:
            self._kept = kept
            log.warning("interfaces without a network are kept: guests are plugged into them", names=sorted(kept))

    def _try(self, what: str, name: str, remove: Callable[[str], None]) -> None:
        try:
            remove(name)
        except (HostError, OSError):
            log.exception("could not remove what has no network any more", what=what, name=name)
        else:
            log.info("removed what has no network any more", what=what, name=name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._lock, _locked(self._root / "lock"):
            yield


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        # A user that can read a file can lock it: dnsmasq, which talks to guests, and other users of this host.
        file.chmod(0o600)
        if not lock(handle, _LOCK_S):
            reason = f"another process has had them for {_LOCK_S:g} s"
            raise Unavailable(what="The networks of this host", reason=reason)
        yield
