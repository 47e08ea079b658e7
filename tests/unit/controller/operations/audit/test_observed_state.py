"""What hosts and the network node show, held against the rows: each breach outside of the database, and each repair."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.db.models import Instance
from controller.domain.guests import Power
from controller.domain.messages import (
    DiskState,
    GuestState,
    HostObservation,
    NetworkObservation,
    ReconcileNetworks,
    SegmentObservation,
)
from controller.domain.names import tap_name
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.audit.observed_state import ObservedState, observe
from controller.operations.audit.run import run_audit
from controller.operations.audit.violation import Violation
from controller.operations.instances import actions
from tests.labs.audited_site import AT_ONCE, CLOUD_ID, GoodSite
from tests.labs.cloud import TestCloud

STRANGER = "i-0000000000000dead"


@pytest.fixture
def good(site: TestCloud) -> Iterator[GoodSite]:
    made = GoodSite.make(site)
    assert made.violations() == []
    made.bus.called.clear()
    yield made


def expect(good: GoodSite, promise: int, subject: str, words: str) -> Violation:
    (violation,) = good.violations()
    assert (violation.promise, violation.subject) == (promise, subject)
    assert words in violation.what
    assert violation.advice
    return violation


# --- hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_domain", [True, False])
def test_a_guest_without_a_row_goes(good: GoodSite, has_domain: bool) -> None:
    seen = good.bus.hosts["h1"]
    if has_domain:
        good.change("h1", guests=(*seen.guests, GuestState(STRANGER, 4, Power.RUNNING)))
    else:
        good.change("h1", disks=(*seen.disks, DiskState(STRANGER, 4)))
    expect(good, 5, STRANGER, "a domain (running) of it, no row" if has_domain else "a disk of it, no row owns it")
    report = good.repair()
    assert ([b.subject for b in report.mended], report.violations) == ([STRANGER], [])
    assert good.absent() == [("h1", STRANGER, 5)]


def test_more_strangers_than_are_believed_stay(good: GoodSite) -> None:
    strangers = tuple(GuestState(f"i-{n:017x}", -1, Power.RUNNING) for n in range(3))
    good.change("h1", guests=(*good.bus.hosts["h1"].guests, *strangers))
    report = good.repair(most_removals=2)
    assert len(report.violations) == 3
    assert "restored from an old copy" in report.notes[0]
    assert good.absent() == []
    assert len(good.repair(most_removals=3).mended) == 3


def test_what_is_left_of_a_deleted_instance_goes(good: GoodSite) -> None:
    host, generation = good.host_of(good.stopped), good.site.instance(good.stopped).generation
    good.site.cloud.write(lambda tx: actions.terminate(tx, good.site.project_id, [good.stopped]))
    good.site.report([good.stopped], Event.GONE)
    good.bus.sent.clear()
    good.change(host, disks=(*good.bus.hosts[host].disks, DiskState(good.stopped, generation + 1)))
    expect(good, 5, good.stopped, "its instance is DELETED")
    assert good.repair().violations == []
    assert good.absent() == [(host, good.stopped, generation + 2)]
    assert good.site.instance(good.stopped).generation == generation + 2


def test_a_second_domain_of_an_instance_goes_if_the_first_is_there(good: GoodSite) -> None:
    home = good.host_of(good.active)
    away = "h2" if home == "h1" else "h1"
    good.change(away, guests=(*good.bus.hosts[away].guests, GuestState(good.active, 1, Power.RUNNING)))
    expect(good, 5, good.active, f"its instance is ACTIVE on {home}")
    good.bus.mute.add(home)
    mute = good.repair()
    assert {b.subject for b in mute.violations} == {good.active, f"host {home}"}
    assert good.absent() == []
    good.bus.mute.clear()
    assert [b.subject for b in good.repair().mended] == [good.active]
    assert [(h, i) for h, i, _ in good.absent()] == [(away, good.active)]
    assert good.site.instance(good.active).generation == 1  # its own host knows no other


def test_a_guest_that_two_names_of_one_machine_show_stays(good: GoodSite) -> None:
    host = good.host_of(good.active)
    other = "h2" if host == "h1" else "h1"
    for name in (host, other):
        good.site.heartbeat(name, boot_id="same", guests=good.bus.hosts[name].guests)
    good.change(other, guests=(*good.bus.hosts[other].guests, GuestState(good.active, 1, Power.RUNNING)))
    expect(good, 5, good.active, f"{other} has a domain (running) of it, its instance is ACTIVE on {host}")
    report = good.repair()
    assert [(b.subject, b.advice.partition(":")[0]) for b in report.violations] == [
        (good.active, "both names are one machine, by its boot id")
    ]
    assert good.absent() == []


def test_a_tap_without_an_owner_goes(good: GoodSite) -> None:
    stray = f"{tap_name(CLOUD_ID, STRANGER)}"
    good.change("h1", taps=(*good.bus.hosts["h1"].taps, stray, tap_name(CLOUD_ID, good.building, 1)))
    found = good.violations()
    assert (5, stray) in {(b.promise, b.subject) for b in found}
    report = good.repair()
    assert stray in {b.subject for b in report.mended}
    assert report.violations == []


@pytest.mark.parametrize(
    ("name", "power", "becomes", "words"),
    [
        ("active", Power.SHUT_OFF, State.STOPPED, "does not run"),
        ("stopped", Power.RUNNING, State.ACTIVE, "it is STOPPED, its guest runs"),
    ],
)
def test_the_row_says_what_the_host_says(good: GoodSite, name: str, power: Power, becomes: State, words: str) -> None:
    instance_id = getattr(good, name)
    host = good.host_of(instance_id)
    guests = [g for g in good.bus.hosts[host].guests if g.instance_id != instance_id]
    good.change(host, guests=(*guests, GuestState(instance_id, 9, power)))
    expect(good, 5, instance_id, words)
    assert [b.subject for b in good.repair().mended] == [instance_id]
    assert good.site.states([instance_id]) == [becomes]
    assert good.violations() == []


def test_unknown_though_its_host_answers(good: GoodSite) -> None:
    long_ago = good.site.clock() - timedelta(hours=1)
    values: dict[Any, Any] = {"state": State.UNKNOWN, "state_since": long_ago}
    good.site.cloud.write(lambda tx: tx.session.query(Instance).where(Instance.id == good.active).update(values))
    expect(good, 5, good.active, "UNKNOWN, though")
    assert good.repair().violations == []
    assert good.site.states([good.active]) == [State.ACTIVE]


def test_a_lost_guest_is_told_until_it_is_terminated(good: GoodSite) -> None:
    host = good.host_of(good.active)
    seen = good.bus.hosts[host]
    good.change(
        host,
        guests=tuple(g for g in seen.guests if g.instance_id != good.active),
        disks=tuple(d for d in seen.disks if d.instance_id != good.active),
        taps=(),
    )
    expect(good, 5, good.active, "neither a domain nor a disk")
    report = good.repair()
    assert [b.what[:13] for b in report.violations] == ["it is STOPPED"]
    assert list(report.mended) == []
    assert good.site.states([good.active]) == [State.STOPPED]


def test_work_in_hand_is_no_breach(good: GoodSite) -> None:
    """What the agent works on, and what only one look shows."""
    host = good.host_of(good.active)
    good.change(host, guests=(), taps=(), pending=tuple(g.instance_id for g in good.bus.hosts[host].guests))
    assert good.violations() == []
    good.show_truth()
    good.change("h1", guests=(*good.bus.hosts["h1"].guests, GuestState(STRANGER, 1, Power.RUNNING)))
    assert good.run(AT_ONCE, lambda _: good.show_truth()).violations == []


def test_an_instance_that_is_being_built_may_be_there_or_not(good: GoodSite) -> None:
    host = good.host_of(good.building)
    seen = good.bus.hosts[host]
    good.change(
        host,
        guests=(*seen.guests, GuestState(good.building, 1, Power.RUNNING)),
        taps=(*seen.taps, tap_name(CLOUD_ID, good.building)),
    )
    assert good.violations() == []


# --- who does not answer ---------------------------------------------------------------------------------


def test_a_silent_host_is_a_line(good: GoodSite) -> None:
    good.bus.mute.add("h2")
    expect(good, 5, "host h2", "did not answer within 1 s")
    good.bus.mute.clear()
    good.change("h2", error="libvirt went away.")
    expect(good, 5, "host h2", "cannot tell what is there: libvirt went away")
    good.show_truth()
    good.bus.network = NetworkObservation(host_side=True, error="no nft")
    expect(good, 9, "the network service", "no nft")


def test_a_host_that_is_down_is_not_asked(good: GoodSite) -> None:
    good.site.cloud.write(lambda tx: tx.session.connection().exec_driver_sql("UPDATE hosts SET up = 0 WHERE id = 'h2'"))
    observed = observe(good.site.cloud, 1)
    assert (set(observed.hosts), observed.down) == ({"h1"}, ("h2",))
    found = good.run(AT_ONCE)
    assert list(found.notes) == []  # it is told once
    assert [(b.subject, b.proof) for b in found.violations] == [
        ("host h2", "down")
    ]  # what it could not see is not clean


def test_without_a_bus_there_is_no_wait(good: GoodSite) -> None:
    good.bus.down = True
    expect(good, 5, "the bus", "it is away")
    assert len(good.bus.called) <= 6


# --- the network node ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "promise", "words"),
    [
        ({"servers": 0}, 9, "no dnsmasq processes serve it"),
        ({"servers": 2}, 9, "2 dnsmasq processes"),
        ({"bridge": False}, 9, "its bridge is not there"),
        ({"lease_max": 150}, 9, "its dhcp-lease-max is 150"),
        ({"served": ()}, 9, "3 of its leases are not served"),
        ({"wrong_options": ("+ dhcp-boot=x",)}, 9, "dhcp-boot=x"),
    ],
)
def test_dhcp_that_is_not_as_the_rows(good: GoodSite, changes: dict[str, object], promise: int, words: str) -> None:
    good.segment(**changes)
    expect(good, promise, good.network_id, words)
    report = good.repair()
    assert len(report.mended) == 1
    assert report.violations == []
    assert any(isinstance(m, ReconcileNetworks) for m in good.bus.called)


def test_a_served_address_without_a_row(good: GoodSite) -> None:
    good.segment(served=(*good.bus.network.segments[0].served, "52:54:00:99:00:99,10.128.0.99,x"))
    expect(good, 5, good.network_id, "52:54:00:99:00:99")


def test_an_address_given_as_no_row_has_it(good: GoodSite) -> None:
    good.segment(given=("52:54:00:99:00:99,10.128.0.2",))
    violation = expect(good, 9, good.network_id, "given addresses as no row has them")
    assert violation.remedy is None


def test_a_network_without_a_row(good: GoodSite) -> None:
    stray = SegmentObservation("net-0000000000000dead", bridge=False, servers=1, lease_max=5)
    good.bus.network = replace(good.bus.network, segments=(*good.bus.network.segments, stray))
    expect(good, 5, "net-0000000000000dead", "it has no row")
    assert good.repair().violations == []


def test_a_network_that_was_not_made(good: GoodSite) -> None:
    good.bus.network = replace(good.bus.network, segments=())
    expect(good, 9, good.network_id, "nothing of it")
    good.site.clock.now -= timedelta(seconds=199)
    assert good.violations() == []


def test_a_changed_firewall(good: GoodSite) -> None:
    good.bus.network = replace(good.bus.network, firewall=("- chain forward: drop",))
    expect(good, 5, "firewall of the network node", "- chain forward: drop")
    assert good.repair().violations == []


def test_networks_that_are_rows_only(good: GoodSite) -> None:
    good.bus.network = NetworkObservation(host_side=False)
    assert good.violations() == []


# --- rows ------------------------------------------------------------------------------------------------


def test_counters_and_what_is_overdue_are_mended(good: GoodSite) -> None:
    for statement in (
        "UPDATE hosts SET memory_used_mib = memory_used_mib + 5 WHERE id = 'h1'",
        "UPDATE projects SET used_instances = 0",
        f"UPDATE instances SET deadline_at = '2000-01-01' WHERE id = '{good.building}'",
    ):
        good.site.cloud.write(lambda tx, s=statement: tx.session.connection().exec_driver_sql(s))  # type: ignore[misc]
    report = good.repair()
    assert {b.promise for b in report.mended} == {1, 3, 8}
    assert report.violations == []
    assert good.site.states([good.building]) == [State.ERROR]


def test_evidence_is_optional(good: GoodSite) -> None:
    assert good.site.cloud.read(audit) == []
    assert good.site.cloud.read(lambda tx: audit(tx, ObservedState())) == []
    (note,) = good.run(replace(AT_ONCE, observed=False)).notes
    assert "only the database" in note


def test_a_host_speaks_for_itself_alone(good: GoodSite) -> None:
    """It answered in another's name, and --repair did what followed: that one's guests counted as off."""
    good.bus.hosts["h2"] = HostObservation("h1", guests=(GuestState(good.active, 1, Power.SHUT_OFF),))
    observed = observe(good.site.cloud)
    assert observed.hosts == {"h1": good.bus.hosts["h1"]}
    assert observed.silent == {"host h2": "its answer is not its own"}
    report = run_audit(good.site.cloud, replace(AT_ONCE, repair=True), pause=lambda _: None)
    assert [b.subject for b in report.violations if b.subject != "host h2"] == []
    assert good.site.states([good.active, good.other]) == [State.ACTIVE, State.ACTIVE]


def test_a_host_does_not_speak_for_the_network_node(good: GoodSite) -> None:
    good.bus.hosts["h2"] = NetworkObservation(host_side=False)  # type: ignore[assignment]
    observed = observe(good.site.cloud)
    assert observed.network is good.bus.network
    assert observed.silent == {"host h2": "its answer is not its own"}


@pytest.mark.parametrize(
    "odd",
    [
        {"guests": (GuestState("\ud800", 1, Power.RUNNING),)},
        {"guests": (GuestState(STRANGER, 2**70, Power.RUNNING),)},
        {"disks": (DiskState("\0", 1),)},
        {"disks": (DiskState(STRANGER, 2**63),)},
        {"pending": ("\ud800",)},
    ],
)
def test_an_answer_that_no_agent_gives_is_none(good: GoodSite, odd: Any) -> None:
    """The whole audit ended with it, of all hosts."""
    good.bus.hosts["h2"] = replace(good.bus.hosts["h2"], **odd)
    report = run_audit(good.site.cloud, replace(AT_ONCE, repair=True), pause=lambda _: None)
    assert {b.subject for b in report.violations} == {"host h2"}
    assert all("cannot be read" in b.what for b in report.violations)
