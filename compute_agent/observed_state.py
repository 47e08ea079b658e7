"""What a host reports to the auditor: all that is there of this cloud, from whatever source."""

from compute_agent.driver import Driver
from compute_agent.journal.journal import Journal
from controller.domain.errors import CloudError
from controller.domain.messages import UNKNOWN_GENERATION, DiskState, GuestState, HostObservation


def observe_host(host: str, driver: Driver, journal: Journal) -> HostObservation:
    """One look at the host. What cannot be looked at is said in the answer, as the auditor waits for one."""
    try:
        # Before the look and after it: what is started and ended in between counts as unfinished.
        pending = journal.unfinished(host)
        found = driver.find_all()
        pending |= journal.unfinished(host)
        kept = driver.kept()
        generations = journal.generations(host)
    except (CloudError, OSError) as error:
        return HostObservation(host, error=str(error) or type(error).__name__)
    guests = (GuestState(i, generations.get(i, UNKNOWN_GENERATION), power) for i, power in sorted(found.guests.items()))
    return HostObservation(
        host,
        guests=tuple(guests),
        disks=tuple(DiskState(i, generations.get(i, UNKNOWN_GENERATION)) for i in sorted(found.disks)),
        taps=tuple(sorted(found.taps)),
        pending=tuple(sorted(pending)),
        kept=tuple(kept),
    )
