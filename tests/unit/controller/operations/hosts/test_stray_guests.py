"""Guests that a host shows and that are not its own: what is removed, what is held, and on whose word."""

import pytest

from controller.db.models import StrayGuest
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestState
from controller.domain.states import Event, State
from controller.operations.hosts import force_removal, hosts, lost_hosts, stray_guests
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.instances import actions, sweeps
from controller.operations.networks import quarantine
from tests.labs.cloud import TestCloud, active, shown


def strays(site: TestCloud, host: str = "h2") -> list[StrayGuest]:
    return list(site.cloud.read(lambda tx: stray_guests.list_strays(tx, host)))


def removed(site: TestCloud) -> list[tuple[str, str, bool]]:
    return [
        (c.host, g.instance_id, g.keep_disk) for c in site.commands() for g in c.guests if g.desired is Desired.ABSENT
    ]


def test_a_renamed_machine_keeps_its_guests(site: TestCloud) -> None:
    """Its old name is silent; whatever the new one shows stays, for hours."""
    ids = active(site, 3)
    for _ in range(100):
        site.clock.advance(60)
        site.heartbeat("h2", guests=shown(*ids))
        site.cloud.write(lost_hosts.mark_lost)
    assert removed(site) == []
    assert site.states(ids) == [State.UNKNOWN] * 3
    assert [s.reason for s in strays(site)] == [
        "left alone: its instance is UNKNOWN on h1, which does not show it running"
    ] * 3


def test_a_double_goes_once_its_own_host_shows_it_running(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat("h2", guests=shown(one))
    site.heartbeat("h1", guests=shown(one))
    assert removed(site) == []
    site.heartbeat("h2", guests=shown(one))
    assert removed(site) == [("h2", one, True)]
    site.heartbeat("h2")
    assert strays(site) == []
    assert site.states([one]) == [State.ACTIVE]


@pytest.mark.parametrize("own", [(), None])
def test_a_double_stays_while_its_own_host_does_not_show_it(
    site: TestCloud, own: tuple[GuestState, ...] | None
) -> None:
    (one,) = active(site)
    for _ in range(3):
        site.heartbeat("h2", guests=shown(one))
        site.heartbeat("h1", guests=shown(one, power=Power.SHUT_OFF) if own is None else own)
    assert removed(site) == []


def test_what_its_own_host_showed_before_counts_not(site: TestCloud) -> None:
    """The machine was renamed and booted; a heartbeat of its old name had waited for the database meanwhile."""
    (one,) = active(site)
    site.clock.advance(10)
    before = [site.beat("h1", guests=shown(one), sequence=n) for n in (1, 2, 3)]
    site.clock.advance(10)
    for beat in before:
        site.heartbeat("h2", guests=shown(one, power=Power.SHUT_OFF))
        site.cloud.write(lambda tx, m=beat: apply_heartbeats(tx, [m]))  # type: ignore[misc]
    site.heartbeat("h2", guests=shown(one, power=Power.SHUT_OFF))
    assert removed(site) == []
    site.clock.advance(10)
    site.heartbeat("h1", guests=shown(one), sequence=4)
    site.heartbeat("h2", guests=shown(one, power=Power.SHUT_OFF))
    assert removed(site) == [("h2", one, True)]


def test_a_guest_that_is_back_is_looked_at_anew(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat("h2", guests=shown(one))
    site.heartbeat("h1", guests=shown(one))
    site.heartbeat("h2", guests=shown(one))
    assert removed(site) == [("h2", one, True)]
    site.heartbeat("h2")
    site.clock.advance(120)
    before = site.beat("h1", guests=shown(one))
    site.clock.advance(10)
    site.heartbeat("h2", guests=shown(one))
    site.cloud.write(lambda tx: apply_heartbeats(tx, [before]))
    site.heartbeat("h2", guests=shown(one))
    assert removed(site) == []


def test_what_its_own_host_showed_long_ago_counts_no_more(site: TestCloud) -> None:
    (one,) = active(site)
    for _ in range(2):
        site.heartbeat("h2", guests=shown(one))
        site.heartbeat("h1", guests=shown(one))
        site.clock.advance(3600)
    site.heartbeat("h2", guests=shown(one))
    assert removed(site) == []


def test_two_looks_are_successive(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat("h2", guests=shown(one))
    for _ in range(3):
        site.heartbeat("h1", guests=shown(one))
        site.heartbeat("h2")
        site.heartbeat("h1", guests=shown(one))
        site.heartbeat("h2", guests=shown(one))
        assert removed(site) == []


def give_up_many(site: TestCloud, count: int) -> list[str]:
    ids = active(site, count)
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))
    site.bus.sent.clear()
    return sorted(ids)


def test_no_more_go_at_once_and_in_an_hour_than_may(site: TestCloud) -> None:
    conf = site.cloud.settings.controller
    object.__setattr__(conf, "stray_removals_per_heartbeat", 2)
    object.__setattr__(conf, "stray_removals_per_hour", 3)
    ids = give_up_many(site, 5)
    counts = []
    left = list(ids)
    for _ in range(4):
        site.heartbeat(guests=shown(*left))
        gone = [i for _, i, _ in removed(site)]
        counts.append(len(gone))
        left = [i for i in left if i not in gone]
    assert counts == [0, 2, 1, 0]
    assert [s.instance_id for s in strays(site, "h1")] == left
    assert {s.reason for s in strays(site, "h1")} == {"held: too many guests to remove at once or in this hour"}
    site.clock.advance(3601)
    site.heartbeat(guests=shown(*left))
    assert len(removed(site)) == 2
    site.clock.advance(8000)
    site.heartbeat()
    site.cloud.write(sweeps.purge)
    assert strays(site, "h1") == []


def test_a_removal_that_was_lost_is_sent_again(site: TestCloud) -> None:
    (one,) = give_up_many(site, 1)
    sent = []
    for _ in range(5):
        site.heartbeat(guests=shown(one))
        sent.append(len(removed(site)))
        site.clock.advance(25)
    assert sent == [0, 1, 0, 0, 1]


def test_what_its_owner_deleted_goes_at_once_with_its_disk(site: TestCloud) -> None:
    (one,) = give_up_many(site, 1)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    site.heartbeat(guests=shown(one))
    assert removed(site) == [("h1", one, False)]


def test_only_the_owners_delete_gives_up_the_disk(site: TestCloud) -> None:
    failed, deleted = active(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [deleted]))
    assert removed(site) == [("h1", deleted, False)]
    site.cloud.write(lambda tx: actions.reboot(tx, site.project_id, [failed]))
    site.report([failed], Event.FAILED, "no")
    assert site.states([failed]) == [State.STOPPED]


def test_a_failed_build_keeps_its_disk(site: TestCloud) -> None:
    from tests.labs.cloud import place

    (one,) = site.launch(1)
    place(site)
    site.bus.sent.clear()
    site.report([one], Event.FAILED, "no")
    assert removed(site) == [("h1", one, True)]


def test_an_unknown_host_is_told_nothing(site: TestCloud) -> None:
    (one,) = give_up_many(site, 1)
    object.__setattr__(site.cloud.settings.controller, "open_registration", "false")
    for _ in range(3):
        site.heartbeat("h9", guests=shown(one), asks=True)
    assert site.bus.sent == []
    assert [h.id for h in site.cloud.read(hosts.list_hosts)] == []


def test_two_names_of_one_machine_remove_nothing(site: TestCloud) -> None:
    """Two agents on one hypervisor show the same guest, not two."""
    (one,) = active(site)
    for _ in range(5):
        site.heartbeat("h2", guests=shown(one), boot_id="same")
        site.heartbeat("h1", guests=shown(one), boot_id="same")
    assert removed(site) == []
    assert [s.reason for s in strays(site)] == ["left alone: h1 is this same machine, with the same boot id"]


def test_an_agent_without_kept_disks_removes_no_guest(site: TestCloud) -> None:
    """Release 0.1 removes the disk with the guest, whatever it is told."""
    one, two = give_up_many(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [two]))
    for _ in range(3):
        site.heartbeat(guests=shown(one, two), speaks=1)
        assert {(i, keep) for _, i, keep in removed(site)} == {(two, False)}
    assert [s.reason for s in strays(site, "h1")] == [
        "left alone: its host's agent cannot keep the disk: upgrade it to 0.2 or newer"
    ]


def test_what_was_given_up_goes_though_its_row_is_gone(site: TestCloud) -> None:
    """Its owner deleted it, and its host came back a week later: the address is kept until the guest is gone."""
    one, two = give_up_many(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one, two]))
    site.clock.advance(2 * 86400)
    site.cloud.write(sweeps.purge)
    stranger = "i-0000000000000dead"
    gone = []
    for _ in range(3):
        site.heartbeat(guests=shown(one, two, stranger))
        gone.append(removed(site))
    assert gone == [[], [("h1", one, True), ("h1", two, True)], []]
    assert len(site.cloud.read(quarantine.list_quarantined)) == 2
    site.heartbeat(guests=shown(stranger), epoch=3)
    assert site.cloud.read(quarantine.list_quarantined) == []
