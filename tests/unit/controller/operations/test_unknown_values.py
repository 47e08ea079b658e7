"""What only the next release knows, in rows and in messages: shown as it is, left alone, never counted wrong."""

from typing import Any

import pytest
from sqlalchemy import text

from api.ec2.states import ec2_state
from controller.db.models import Network, PlacementGroup
from controller.domain.errors import IncorrectInstanceState, InUse
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestReport, GuestsChanged, GuestState
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.audit.repair import recount_hosts, recount_projects
from controller.operations.cloud import Transaction
from controller.operations.hosts import force_removal, hosts, lost_hosts
from controller.operations.instances import actions, placement_groups, sweeps
from controller.operations.instances.reports import apply_reports
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud, active

LATER = State("MIGRATING")
LONG_S = 10 * 24 * 3600


def migrating(site: TestCloud) -> str:
    """An instance in a state that only the next release has, with a deadline and a ring that are over."""
    (one,) = active(site)
    values = {"id": one, "state": LATER, "at": site.clock().replace(tzinfo=None).isoformat(" ")}
    statement = "UPDATE instances SET state = :state, deadline_at = :at, ring_at = :at WHERE id = :id"
    site.cloud.write(lambda tx: tx.session.execute(text(statement), values))
    site.bus.sent.clear()
    return one


def row(site: TestCloud, one: str) -> dict[str, Any]:
    query = text("SELECT * FROM instances WHERE id = :id")
    return dict(site.cloud.read(lambda tx: tx.session.execute(query, {"id": one}).mappings().one()))


def test_no_sweep_no_report_and_no_heartbeat_moves_it(site: TestCloud) -> None:
    one = migrating(site)
    before = row(site, one)
    generation = before["generation"]
    site.clock.advance(LONG_S)
    for sweep in (sweeps.expire, sweeps.notify, sweeps.purge, lost_hosts.mark_lost):
        site.cloud.write(sweep)
    for guests in ((), (GuestState(one, generation, Power.SHUT_OFF),), (GuestState(one, -1, Power.RUNNING),)):
        site.heartbeat(guests=guests)
    for event in (*Event, Event("MIGRATED")):
        message = GuestsChanged("h1", (GuestReport(one, generation + 1, event, "so"),))
        site.cloud.write(lambda tx, m=message: apply_reports(tx, [m]))  # type: ignore[misc]
    assert row(site, one) == before
    assert [c for c in site.commands() if any(g.instance_id == one for g in c.guests)] == []


def test_it_is_not_removed_where_a_host_shows_it_that_is_not_its_own(site: TestCloud) -> None:
    """Its guest may be on two hosts, or on its way."""
    one = migrating(site)
    for _ in range(3):
        site.heartbeat("h1", sequence=0)
        site.heartbeat("h2", guests=(GuestState(one, 1, Power.RUNNING),))
        site.clock.advance(60)
    assert [c for c in site.commands() if any(g.desired is Desired.ABSENT for g in c.guests)] == []


def test_no_user_moves_it_and_all_see_it(site: TestCloud) -> None:
    one = migrating(site)
    for wish in (actions.start, actions.stop, actions.reboot, actions.terminate):
        with pytest.raises(IncorrectInstanceState):
            site.cloud.write(lambda tx, w=wish: w(tx, site.project_id, [one]))  # type: ignore[misc]
    assert site.states([one]) == [LATER]
    assert ec2_state(site.instance(one).state) == (16, "migrating")


def test_its_host_cannot_be_given_up(site: TestCloud) -> None:
    one = migrating(site)
    site.clock.advance(LONG_S)
    site.cloud.write(lost_hosts.mark_lost)
    with pytest.raises(InUse, match=f"{one}, MIGRATING"):
        site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))


def test_it_is_counted_as_what_it_is(site: TestCloud) -> None:
    """The audit says that it does not know the state, and finds nothing else; to count anew changes nothing."""
    one = migrating(site)
    (told,) = site.cloud.read(audit)
    assert (told.subject, told.remedy) == (one, None)
    assert "MIGRATING" in told.what

    def counters(tx: Transaction) -> list[Any]:
        return [
            list(tx.session.execute(text(f"SELECT * FROM {table}")).mappings().one().items())
            for table in ("hosts", "projects")
        ]

    before = site.cloud.read(counters)
    site.cloud.write(lambda tx: recount_hosts(tx, ["h1"]))
    site.cloud.write(lambda tx: recount_projects(tx, [site.project_id]))
    assert site.cloud.read(counters) == before


def test_unknown_power_spares_the_rest_of_a_heartbeat(site: TestCloud) -> None:
    odd, off = active(site, 2)
    site.clock.advance(3600)
    generation = site.instance(odd).generation
    site.heartbeat(
        guests=(GuestState(odd, generation, Power("PAUSED")), GuestState(off, generation, Power("SHUT_OFF"))),
        sequence=7,
    )
    assert site.states([odd, off]) == [State.ACTIVE, State.STOPPED]
    (host,) = site.cloud.read(hosts.list_hosts)
    assert (host.up, host.last_seen_at) == (True, site.clock())


def test_an_unknown_event_leaves_the_other_reports_intact(site: TestCloud) -> None:
    odd, off = active(site, 2)
    generation = site.instance(odd).generation
    reports = (GuestReport(odd, generation, Event("PAUSED")), GuestReport(off, generation, Event.SHUT_OFF))
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged("h1", reports)]))
    assert site.states([odd, off]) == [State.ACTIVE, State.STOPPED]


def test_a_host_in_an_unknown_mode_takes_nothing(site: TestCloud) -> None:
    site.cloud.write(lambda tx: tx.session.execute(text("UPDATE hosts SET mode = 'EVACUATING'")))
    site.heartbeat()
    site.heartbeat("h2")
    ids = site.launch(3)
    site.cloud.write(lambda tx: schedule(tx, [site.instance(ids[0]).reservation_id], HostCache()))
    assert {site.instance(i).host_id for i in ids} == {"h2"}
    assert [h.mode for h in site.cloud.read(hosts.list_hosts)] == ["EVACUATING", "READY"]


def test_unknown_kinds_are_left_to_a_newer_scheduler(site: TestCloud) -> None:
    group = site.cloud.write(lambda tx: placement_groups.create_placement_group(tx, site.project_id, "g", "spread").id)

    def change(tx: Transaction, kind: str, strategy: str) -> None:
        for network in tx.session.query(Network):
            network.kind = kind
        tx.session.get_one(PlacementGroup, group).strategy = strategy

    ids = site.launch(1, group_name="g")
    for kind, strategy in (("ROUTED", "spread"), ("POOLED", "partition")):
        site.cloud.write(lambda tx, k=kind, s=strategy: change(tx, k, s))  # type: ignore[misc]
        site.cloud.write(lambda tx: schedule(tx, [site.instance(ids[0]).reservation_id], HostCache()))
        assert site.states(ids) == [State.REQUESTED]
    site.cloud.write(lambda tx: change(tx, "POOLED", "spread"))
    site.cloud.write(lambda tx: schedule(tx, [site.instance(ids[0]).reservation_id], HostCache()))
    assert site.states(ids) == [State.BUILDING]
