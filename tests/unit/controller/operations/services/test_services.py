"""The rows of the services that run: renewed, aged, removed, and what they say of the messages that all can read."""

import pytest
from sqlalchemy import update

from controller.db.models import Cloud, Service
from controller.domain.errors import InUse, InvalidParameter
from controller.domain.messages import Message, ReconcileGuests, RemoveImages, ScheduleReservation, host_of
from controller.domain.release import RELEASE
from controller.operations.cloud import Transaction
from controller.operations.services import services
from controller.operations.services.receivers import GONE_AFTER_S
from controller.operations.services.services import KEPT, Presence
from tests.labs.cloud import TestCloud
from tests.labs.message_examples import EXAMPLES

API, SCHEDULER = Presence("a", "api", "m1", 7), Presence("s", "scheduler", "m2", 8)
CONTROLLER = Presence("c", "controller", "m1", 9)


def renew(site: TestCloud, *present: Presence, version: int = 2) -> None:
    site.cloud.write(lambda tx: services.renew(tx, present, version=version, unread=["Later"]))


def running(site: TestCloud) -> list[str]:
    return [s.name for s in site.cloud.read(services.running)]


def migrated_from_01(site: TestCloud) -> None:
    """As the migration leaves the row of a cloud of 0.1."""

    def set_oldest(tx: Transaction) -> None:
        row = tx.session.get(Cloud, 1)
        assert row is not None
        row.oldest_release = "0.1.0"

    site.cloud.write(set_oldest)


def test_renewed_twice_is_one_row(site: TestCloud) -> None:
    renew(site, API, SCHEDULER)
    site.clock.advance(5)
    renew(site, API)
    first, second = site.cloud.read(services.list_services)
    assert (first.name, first.machine, first.pid, first.release, first.speaks) == ("api", "m1", 7, RELEASE, 2)
    assert (first.seen_at - first.started_at).total_seconds() == 5
    assert first.unread == "Later"
    assert second.seen_at == second.started_at


def test_what_is_not_renewed_does_not_run(site: TestCloud) -> None:
    renew(site, API, SCHEDULER)
    site.clock.advance(GONE_AFTER_S)
    renew(site, API)
    assert running(site) == ["api", "scheduler"]
    site.clock.advance(1)
    assert running(site) == ["api"]
    site.clock.advance(KEPT.total_seconds())
    renew(site, API)
    site.cloud.write(services.forget)
    assert [s.name for s in site.cloud.read(services.list_services)] == ["api"]


def test_what_leaves_is_gone(site: TestCloud) -> None:
    renew(site, API, SCHEDULER)
    site.cloud.write(lambda tx: services.leave(tx, [SCHEDULER]))
    assert running(site) == ["api"]


def test_all_speak_what_the_lowest_speaks(site: TestCloud) -> None:
    assert site.cloud.read(services.services_speak) == 2
    renew(site, API, version=4)
    renew(site, SCHEDULER, version=3)
    assert site.cloud.read(services.services_speak) == 3
    site.clock.advance(GONE_AFTER_S + 1)
    renew(site, API, version=4)
    assert site.cloud.read(services.services_speak) == 4


def test_services_of_01_count_until_an_operator_objects(site: TestCloud) -> None:
    migrated_from_01(site)
    renew(site, API, CONTROLLER)
    assert site.cloud.read(services.services_speak) == 1
    site.cloud.write(lambda tx: services.require(tx, RELEASE))
    assert site.cloud.read(services.services_speak) == 2


@pytest.mark.parametrize("release", ["99.0.0", "new", "1", ""])
def test_only_a_release_that_this_one_knows_is_required(site: TestCloud, release: str) -> None:
    with pytest.raises(InvalidParameter):
        site.cloud.write(lambda tx: services.require(tx, release))


def test_nothing_is_required_that_an_older_service_lacks(site: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "RELEASE", "0.1.9")
    renew(site, API)
    monkeypatch.undo()
    with pytest.raises(InUse, match=r"api of 0\.1\.9 on m1"):
        site.cloud.write(lambda tx: services.require(tx, RELEASE))


def test_nothing_is_required_beside_a_controller_of_01(site: TestCloud) -> None:
    site.heartbeat("h1", speaks=1)
    with pytest.raises(InUse, match="which took heartbeats of 1 host, "):
        site.cloud.write(lambda tx: services.require(tx, RELEASE))
    site.cloud.write(lambda tx: services.require(tx, "0.1.0"))
    renew(site, CONTROLLER)
    site.cloud.write(lambda tx: services.require(tx, RELEASE))


def test_a_release_of_two_numbers_means_the_same(site: TestCloud) -> None:
    migrated_from_01(site)
    renew(site, CONTROLLER)
    site.cloud.write(lambda tx: services.require(tx, "0.2"))
    assert site.cloud.read(services.services_speak) == 2


def sent(site: TestCloud, host: str) -> list[str]:
    """Which of a message that is of version 2, and of a command, leave for a host."""
    site.bus.sent.clear()
    site.cloud.write(lambda tx: tx.outbox.extend([RemoveImages(host, ()), ReconcileGuests(host, (), 1)]))
    return [m.KIND for m in site.bus.sent]


def test_no_host_is_sent_what_its_agent_cannot_read(site: TestCloud) -> None:
    site.heartbeat("h1", speaks=1)
    site.heartbeat("h2", release="0.2.0", speaks=2)
    assert sent(site, "h2") == ["RemoveImages", "ReconcileGuests"]
    assert sent(site, "h1") == ["ReconcileGuests"]
    assert sent(site, "stranger") == ["ReconcileGuests"]
    site.heartbeat("h2", speaks=1)  # an agent of 0.1 again
    assert sent(site, "h2") == ["ReconcileGuests"]


def notified(site: TestCloud) -> list[Message]:
    """What leaves for the schedulers as one doorbell for three reservations."""
    site.bus.sent.clear()
    site.cloud.write(lambda tx: tx.outbox.append(ScheduleReservation("r-1", ("r-2", "r-3"))))
    return list(site.bus.sent)


def test_old_services_get_a_doorbell_for_each_reservation(site: TestCloud) -> None:
    each = [ScheduleReservation(f"r-{n}") for n in (1, 2, 3)]
    together = [ScheduleReservation("r-1", ("r-2", "r-3"))]
    migrated_from_01(site)
    renew(site, API, CONTROLLER)
    assert notified(site) == each
    site.cloud.write(lambda tx: services.require(tx, RELEASE))
    assert notified(site) == together
    site.cloud.write(lambda tx: tx.session.execute(update(Service).values(speaks=1)))
    assert notified(site) == each


def test_agents_send_what_every_service_has_always_read() -> None:
    """What a service is sent by agents, and what doors ring, has no kind that 0.1 lacks: nothing would hold it back."""
    to_services = [m for m in EXAMPLES.values() if not _goes_to_a_host(m)]
    assert {m.SINCE for m in to_services} == {1}


def _goes_to_a_host(message: Message) -> bool:
    try:
        return bool(host_of(message.queue))
    except TypeError:  # an answer: who asks for it can read it
        return False
