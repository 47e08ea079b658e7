"""Epochs of hosts: raised, remembered, told to agents, and in every command."""

from datetime import datetime, timedelta

import pytest

from controller.domain.guests import Power
from controller.domain.messages import GuestState, HostAccepted
from controller.domain.states import Event, State
from controller.operations.hosts import force_removal, hosts, lost_hosts
from controller.operations.instances import actions
from tests.labs.cloud import TestCloud, active, place


def epoch(site: TestCloud, host: str = "h1") -> int:
    return site.cloud.read(lambda tx: hosts.get_host(tx, host).epoch)


def answer(site: TestCloud) -> HostAccepted:
    (message,) = site.bus.take(HostAccepted)
    assert isinstance(message, HostAccepted)
    return message


def close_registration(site: TestCloud) -> None:
    object.__setattr__(site.cloud.settings.controller, "open_registration", "false")


def give_up(site: TestCloud) -> None:
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))
    site.bus.sent.clear()


def test_each_registration_and_removal_raises_it(site: TestCloud) -> None:
    seen = []
    for _ in range(3):
        site.heartbeat("h2")
        seen.append(epoch(site, "h2"))
        site.cloud.write(lambda tx: hosts.remove_host(tx, "h2"))
    assert seen == [1, 3, 5]


def test_every_command_names_it_and_expires(site: TestCloud) -> None:
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    (command,) = site.commands()
    assert command.epoch == epoch(site) == 1
    assert datetime.fromisoformat(command.expires_at) == site.clock() + timedelta(seconds=600)


def test_an_agent_that_asks_is_answered(site: TestCloud) -> None:
    runs, stopped = active(site, 2)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [stopped]))
    site.report([stopped], Event.SHUT_OFF)
    site.heartbeat(boot_id="b2", epoch=1, asks=True, sequence=7, pending=(runs,))
    told = answer(site)
    assert (told.host, told.boot_id, told.epoch, told.sequence, told.runs) == ("h1", "b2", 1, 7, (runs,))
    assert told.at == site.clock().isoformat()
    site.heartbeat(boot_id="b2", epoch=1, sequence=8)
    assert site.bus.take(HostAccepted) == []


def test_an_agent_of_an_old_epoch_is_told_the_new_one(site: TestCloud) -> None:
    site.heartbeat("h2")
    site.cloud.write(lambda tx: hosts.remove_host(tx, "h2"))
    site.heartbeat("h2", epoch=1, sequence=1)
    assert (answer(site).epoch, epoch(site, "h2")) == (3, 3)


def test_an_agent_that_lost_its_journal_gets_a_new_epoch(site: TestCloud) -> None:
    """What was sent before is under way perhaps, and the agent does not know any more what came of it."""
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    (before,) = site.commands()
    site.heartbeat(asks=True, sequence=7)
    assert answer(site).epoch == epoch(site) == before.epoch + 1
    site.heartbeat(asks=True, sequence=7)
    assert epoch(site) == before.epoch + 1, "the same heartbeat twice"
    site.heartbeat(asks=True, sequence=8, epoch=epoch(site))
    assert answer(site).epoch == before.epoch + 1


def test_an_agent_of_release_0_1_keeps_its_epoch(site: TestCloud) -> None:
    site.heartbeat(sequence=9, speaks=1)
    assert epoch(site) == 1


def test_an_agent_of_release_0_1_is_told_nothing(site: TestCloud) -> None:
    site.heartbeat(sequence=9)
    assert site.bus.take(HostAccepted) == []


def test_a_guest_that_waits_for_its_start_is_not_taken_for_stopped(site: TestCloud) -> None:
    """The answer may be lost many times; the next one still has it started."""
    (one,) = active(site)
    off = (GuestState(one, site.instance(one).generation, Power.SHUT_OFF),)
    for n in range(5):
        site.clock.advance(40)
        site.heartbeat(boot_id="b2", asks=True, sequence=7 + n, guests=off, pending=(one,))
        assert answer(site).runs == (one,)
    assert site.states([one]) == [State.ACTIVE]
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.heartbeat(boot_id="b3", asks=True, sequence=99, guests=off, pending=(one,))
    assert answer(site).runs == (one,)
    assert site.states([one]) == [State.UNKNOWN]


def test_a_removed_host_runs_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    close_registration(site)
    give_up(site)
    site.heartbeat(boot_id="b2", epoch=1, asks=True, sequence=7, guests=(GuestState(one, 1, Power.SHUT_OFF),))
    told = answer(site)
    assert (told.epoch, told.runs) == (2, ())
    assert site.cloud.read(hosts.list_hosts) == []


def test_a_row_behind_its_agent_is_raised(site: TestCloud) -> None:
    """The database was restored from a backup."""
    active(site)
    site.heartbeat(epoch=7, sequence=7)
    assert (answer(site).epoch, epoch(site)) == (8, 8)
    site.heartbeat(epoch=8, sequence=9)
    assert site.bus.take(HostAccepted) == []


def test_a_registration_is_above_what_the_agent_shows(site: TestCloud) -> None:
    site.heartbeat("h7", epoch=41, asks=True)
    assert (answer(site).epoch, epoch(site, "h7")) == (42, 42)


@pytest.mark.parametrize("shown", [2**53 - 1, 1_000_002])
def test_an_epoch_that_cannot_be_is_not_taken(site: TestCloud, shown: int) -> None:
    site.heartbeat(epoch=shown, sequence=7)
    assert (answer(site).epoch, epoch(site)) == (1, 1)


def test_a_command_of_an_instance_that_left_is_not_sent(site: TestCloud) -> None:
    """It was read before its host was force-removed, the command is made after that."""
    from controller.operations.instances.guest_specs import reconcile_commands
    from controller.operations.instances.locking import read_instances

    (one,) = active(site)
    before = site.cloud.read(lambda tx: read_instances(tx, [one]))
    give_up(site)
    site.heartbeat(epoch=1, sequence=7)
    assert site.cloud.read(lambda tx: reconcile_commands(tx, before)) == []


def test_hosts_that_boot_together_share_statements(site: TestCloud) -> None:
    from sqlalchemy import event

    from controller.operations.hosts.heartbeats import apply_heartbeats

    names = [f"n{n:03}" for n in range(50)]
    for name in names:
        site.heartbeat(name)
    place(site)
    statements: list[str] = []

    def count(_1: object, _2: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(site.cloud.database.engine, "before_cursor_execute", count)
    beats = [site.beat(n, asks=True, sequence=7) for n in names]
    site.cloud.write(lambda tx: apply_heartbeats(tx, beats))
    assert len(site.bus.take(HostAccepted)) == 50
    assert len(statements) < 10, statements
