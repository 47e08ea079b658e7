"""What an agent says of its host with each heartbeat: facts, guests, remarks for an operator."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from compute_agent.driver import Driver
from compute_agent.fence import Fence
from compute_agent.journal.journal import Journal
from compute_agent.mac_probe import MacProbe, MacReport
from controller.bus.unread import UNREAD
from controller.domain.clock import Clock
from controller.domain.host_facts import MAX_IMAGES
from controller.domain.messages import UNKNOWN_GENERATION, GuestState, HostReported
from controller.domain.release import RELEASE
from controller.domain.wire import VERSION

_KEPT_NAMED = 10


@dataclass(frozen=True)
class HostOptions:
    """What the configuration says of a host; its driver does not know it."""

    zone: str = ""
    labels: tuple[str, ...] = ()
    disk_backends: tuple[str, ...] = ()
    mac_probe: MacProbe | None = None
    start_unconfirmed_after_s: float = 0.0
    keep_disks_s: float = 7 * 86400.0


def facts(host: str, driver: Driver, options: HostOptions, at: datetime) -> HostReported:
    """What a host is and has; its guests are left out.

    Raises:
        DriverError: the hypervisor cannot be asked.
    """
    capacity = driver.capacity()
    macs = options.mac_probe.report(host) if options.mac_probe else MacReport()
    return HostReported(
        host=host,
        at=at.isoformat(),
        boot_id=driver.boot_id,
        hypervisor=capacity.hypervisor,
        vcpus=capacity.vcpus,
        memory_mib=capacity.memory_mib,
        disk_gib=capacity.disk_gib,
        architecture=capacity.architecture,
        zone=options.zone,
        labels=options.labels,
        images=driver.images()[:MAX_IMAGES],
        disk_backends=options.disk_backends,
        allowed_macs=macs.macs,
        probe_error=macs.error,
        release=RELEASE,
        speaks=VERSION,
        guest_overhead_mib=capacity.guest_overhead_mib,
    )


class Heartbeats:
    """The heartbeats of one host, numbered."""

    def __init__(
        self, host: str, driver: Driver, journal: Journal, fence: Fence, clock: Clock, options: HostOptions
    ) -> None:
        self._host = host
        self._driver = driver
        self._journal = journal
        self._fence = fence
        self._clock = clock
        self._options = options
        self._sequence = int(clock().timestamp() * 1000)

    def next(self, working: Collection[str], *, unconfirmed: int) -> HostReported:
        """The next heartbeat: ``working`` are guests that are worked on, ``unconfirmed`` guests that were started
        without a controller's answer.

        Raises:
            DriverError: the hypervisor cannot be asked. Unavailable: the journal cannot be read.
        """
        # In this order: work that is begun in this epoch is either pending, or shows in the list of guests.
        epoch = self._fence.epoch
        pending = self._journal.unfinished(self._host) | set(working)
        generations = self._journal.generations(self._host)
        guests = self._driver.list_guests()
        self._sequence += 1
        now = facts(self._host, self._driver, self._options, self._clock())
        seen = tuple(GuestState(i, generations.get(i, UNKNOWN_GENERATION), p) for i, p in sorted(guests.items()))
        self._fence.asked(self._sequence)
        return replace(
            now,
            guests=seen,
            sequence=self._sequence,
            epoch=epoch,
            asks=self._fence.asks,
            pending=tuple(sorted(pending)),
            remarks=tuple(self._remarks(unconfirmed)),
        )

    def _remarks(self, unconfirmed: int) -> Iterator[str]:
        yield from self._fence.remarks()
        if unread := UNREAD.summary():
            yield f"it cannot read what a newer release sends: {' '.join(unread)}"
        if waiting := self._journal.waiting(self._host):
            yield f"{waiting} guests wait until a controller has accepted this boot of the host"
        if unconfirmed:
            yield f"{unconfirmed} guests were started though no controller had accepted this boot"
        if kept := sorted({k.instance_id for k in self._driver.kept()}):
            more = f" and {len(kept) - _KEPT_NAMED} more" if len(kept) > _KEPT_NAMED else ""
            yield f"disks of removed guests are kept: {' '.join(kept[:_KEPT_NAMED])}{more}"
