"""The host side of the networks, as ``[network] driver`` names it."""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from controller.conf.settings import Settings
from controller.domain.messages import NetworkObservation
from network.queries import Rows

# Names of classes; None: networks are rows only, for sites whose hosts are simulated.
HOST_SIDES: Mapping[str, str | None] = MappingProxyType(
    {"linux": "network.reconciler:NetworkReconciler", "none": None},
)


@dataclass(frozen=True)
class Reconciled:
    """The result of a reconciliation: why networks ``failed``; ``remembered`` has, for each of the others whose leases
    were all read, the addresses that no instance holds and that DHCP remembers all the same. ``stale`` are networks of
    which more has changed than was read."""

    rows: Rows
    failed: Mapping[str, str]
    remembered: Mapping[str, Set[str]]
    stale: Set[str] = frozenset()


class HostSide(ABC):
    """Bridges, DHCP, DNS and firewall of one cloud's networks on this host.

    ``reconcile`` and ``observed`` raise ``Unavailable`` while another process works on the same networks.
    """

    @abstractmethod
    def check_machine(self) -> None:
        """Raises ConfigurationError: this machine lacks what it needs; says what, and what to do."""

    @abstractmethod
    def reconcile(self, read: Callable[[], Rows], *, verify: bool) -> Reconciled:
        """Make equal the networks whose leases ``read`` gives, all or what is new; remove what has no row.

        ``verify``: also look for changes of the firewall from elsewhere.
        """

    @abstractmethod
    def observed(self, read: Callable[[], Rows]) -> NetworkObservation:
        """What is there, while no reconciliation is under way; what cannot be looked at is said in the answer."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove all that this cloud has on this host, found on the host itself.

        Raises:
            HostError: something could not be removed; the rest has been.
        """


def make_host_side(settings: Settings) -> HostSide | None:
    """The host side that is configured; None if networks are rows only."""
    name = HOST_SIDES[settings.network.driver]
    if name is None:
        return None
    made: HostSide = pkgutil.resolve_name(name)(settings)
    return made
