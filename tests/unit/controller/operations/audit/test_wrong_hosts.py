"""What the audit says of guests on wrong hosts, of removed hosts, and of what is kept because of them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.domain.messages import KeptDisk, ReconcileGuests
from controller.operations.audit.audit import audit
from controller.operations.audit.repair import repair
from controller.operations.audit.run import AuditOptions, run_audit
from controller.operations.audit.violation import Repair, Violation
from controller.operations.hosts import force_removal, lost_hosts
from controller.operations.networks import quarantine
from tests.labs.audited_site import AT_ONCE, GoodSite
from tests.labs.cloud import TestCloud, active, shown

ROWS = AuditOptions(observed=False)


def violations(site: TestCloud) -> list[Violation]:
    return site.cloud.read(audit)


def mended(site: TestCloud, found: list[Violation]) -> list[tuple[str, str, int, int, bool]]:
    assert repair(site.cloud, found, 1) == []
    return [
        (m.host, g.instance_id, m.epoch, g.generation, g.keep_disk)
        for m in site.bus.take(ReconcileGuests)
        for g in m.guests
    ]


@pytest.fixture
def one(site: TestCloud) -> str:
    """An instance of h1, which was removed; hosts join by themselves no more."""
    site.heartbeat("h1")
    object.__setattr__(site.cloud.settings.controller, "open_registration", "false")
    (made,) = active(site)
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))
    site.bus.sent.clear()
    return made


def test_a_removed_host_that_shows_its_guests_again(site: TestCloud, one: str) -> None:
    object.__setattr__(site.cloud.settings.controller, "stray_removals_per_hour", 0)
    generation = site.instance(one).generation
    assert violations(site) == []
    for n in range(3):
        site.heartbeat(epoch=2, sequence=5 + n, guests=shown(one))
        assert violations(site) == []  # it is not shown for long
        site.clock.advance(25)
    (violation,) = violations(site)
    assert (violation.promise, violation.subject) == (5, one)
    assert "h1, which was removed, shows a guest of it (running); held: too many" in violation.what
    assert "pileus host fence h1" in violation.advice
    assert violation.remedy is not None
    assert violation.remedy.mend is Repair.REMOVE_GUEST
    assert mended(site, [violation]) == [("h1", one, 2, generation, True)]
    site.heartbeat(epoch=2, sequence=9)
    assert violations(site) == []


def test_a_removed_host_that_is_said_to_be_dead(site: TestCloud, one: str) -> None:
    for n in range(5):
        site.heartbeat(epoch=2, sequence=5 + n, guests=shown(one))
        site.clock.advance(25)
    assert len(violations(site)) == 1
    site.cloud.write(lambda tx: quarantine.fence(tx, "h1"))
    assert violations(site) == []
    site.clock.advance(1)
    site.heartbeat(epoch=2, sequence=10, guests=shown(one))  # it is not
    assert len(violations(site)) == 1


def test_what_may_be_the_only_one_is_not_removed(site: TestCloud) -> None:
    """A machine that was renamed, and says no more."""
    (one,) = active(site)
    for _ in range(5):
        site.clock.advance(25)
        site.heartbeat("h2", guests=shown(one))
    (violation,) = violations(site)
    assert (violation.promise, violation.subject, violation.remedy) == (5, one, None)
    assert "h2 shows a guest of it (running); left alone: its instance is ACTIVE on h1" in violation.what
    assert mended(site, [violation]) == []


def test_who_has_told_now_is_asked_no_old_stories(site: TestCloud) -> None:
    """What an agent answers is newer than what its heartbeats have shown."""
    good = GoodSite.make(site)
    one = good.active
    wrong = "h2" if good.host_of(one) == "h1" else "h1"
    for _ in range(5):
        site.clock.advance(25)
        for host in ("h1", "h2"):
            site.heartbeat(host, guests=good.bus.hosts[host].guests + (shown(one) if host == wrong else ()))
    assert good.violations() == []
    good.bus.mute.add(wrong)
    assert {b.subject for b in good.violations()} == {f"host {wrong}", one}


def test_an_address_that_is_kept_for_long_is_shown(site: TestCloud, one: str) -> None:
    assert run_audit(site.cloud, ROWS).notes == ["only the database was looked at: no host, no DHCP, no firewall"]
    site.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    report = run_audit(site.cloud, ROWS)
    assert "1 addresses are in quarantine for more than a day, because of h1" in report.notes[1]
    assert report.violations == []
    site.cloud.write(lambda tx: quarantine.fence(tx, "h1"))
    assert len(run_audit(site.cloud, ROWS).notes) == 1


def test_kept_disks_are_shown(site: TestCloud) -> None:
    good = GoodSite.make(site)
    kept = tuple(KeptDisk(f"i-{n:017x}", "2026-01-01T00:00:00+00:00", 10) for n in range(2))
    good.change("h2", kept=kept)
    report = good.run(replace(AT_ONCE, repair=True))
    assert (report.violations, report.notes) == ([], ["2 disks of removed guests are kept, on h2"])
