"""What the auditor is told of a host: all that is there of this cloud, whoever made it."""

from compute_agent.driver import Driver
from compute_agent.journal.journal import Journal
from controller.domain.errors import CloudError
from controller.domain.messages import UNTOLD, DiskState, GuestState, HostObservation


def observe_host(host: str, driver: Driver, journal: Journal) -> HostObservation:
    """One look at the host. What cannot be looked at is said in the answer: whoever asks waits for one."""
    try:
        # Before the look: what is begun and ended during it is in hand, not a surprise.
        pending = journal.in_hand(host)
        found = driver.find_all()
        pending |= journal.in_hand(host)
        kept = driver.kept()
        generations = journal.generations(host)
    except (CloudError, OSError) as error:
        return HostObservation(host, error=str(error) or type(error).__name__)
    guests = (GuestState(i, generations.get(i, UNTOLD), power) for i, power in sorted(found.guests.items()))
    return HostObservation(
        host,
        guests=tuple(guests),
        disks=tuple(DiskState(i, generations.get(i, UNTOLD)) for i in sorted(found.disks)),
        taps=tuple(sorted(found.taps)),
        pending=tuple(sorted(pending)),
        kept=tuple(kept),
    )
