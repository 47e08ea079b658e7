"""Two real hosts: one of them fails, the other one and its guests go on.

Each service is a process of its own, on RabbitMQ and PostgreSQL. Each host is a machine that has joined by a token,
with an agent, a libvirtd and a guest that runs from the first test to the last.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.states import State
from tests.faults import Row, each_row, row
from tests.labs.system.faults_lab import Guest, GuestsUntouched
from tests.labs.system.host_guests import BuildStep
from tests.labs.system.pair_lab import PairLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

_APART = "apart"  # the placement group of the two guests


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PairLab]:
    with PairLab(tmp_path_factory.mktemp("two-hosts"), programs=Path(sys.executable).parent) as made:
        yield made


@pytest.fixture(scope="module")
def guests(lab: PairLab) -> dict[str, Guest]:
    """The guest of each host; they are apart, so that each host has one."""
    lab.cloud.ec2.create_placement_group(GroupName=_APART, Strategy="spread")
    return {lab.host_of(g.id).name: g for g in lab.booted(lab.ask(2, group=_APART))}


@pytest.fixture(autouse=True)
def nothing_is_left(lab: PairLab, guests: dict[str, Guest]) -> Iterator[None]:
    """After each test both hosts are well, with their guest and nothing else."""
    yield
    lab.up()
    ids = {g.id for g in guests.values()}
    lab.wait_state(State.ACTIVE, *ids)
    assert {i for i, s in lab.states().items() if s is not State.DELETED} == ids
    for host in lab.hosts:
        host.guests.assert_only(*(g.id for name, g in guests.items() if name == host.name))
    lab.assert_clean()


@row(
    fault="one more member of a spread group than there are hosts",
    strikes="both hosts carry a member",
    seen="ERROR, with each host's refusal; the two members run, one on each host",
)
def test_a_spread_group_that_is_full(lab: PairLab, guests: dict[str, Guest]) -> None:
    assert set(guests) == {h.name for h in lab.hosts}
    with GuestsUntouched(lab, *guests.values()):
        (third,) = lab.ask(group=_APART)
        lab.wait_state(State.ERROR, third)
        assert "2 by group" in lab.cloud.pileus("instance", "explain", third)
        lab.terminate(third)


@row(
    fault="a host hears and says nothing, without a reset, for longer than it may be silent",
    strikes="a guest runs there, another one on the other host",
    seen="UNKNOWN, then ACTIVE again by itself; new instances get on the other host meanwhile; no guest was restarted",
)
def test_a_host_that_is_cut_off(lab: PairLab, guests: dict[str, Guest]) -> None:
    lost, other = lab.hosts
    with GuestsUntouched(lab, *guests.values()):
        with lost.cut_off():
            lab.wait_state(State.UNKNOWN, guests[lost.name].id)
            assert lab.hosts_up() == {other.name}
            asked = lab.ask(2)
            lab.wait_state(State.ACTIVE, *asked)
            other.guests.assert_only(guests[other.name].id, *asked)
            assert lab.states()[guests[other.name].id] is State.ACTIVE
            assert lab.boot_id(guests[lost.name]), "its guest does not answer"
        lab.wait_state(State.ACTIVE, guests[lost.name].id)
        lab.terminate(*asked)


@row(
    fault="a host hears and says nothing, without a reset, for longer than it may be silent",
    strikes="it builds a guest, as the other host does",
    seen="both are built once; the one of the host that was cut off is ACTIVE when it is heard of again",
)
def test_cut_off_in_a_build(lab: PairLab, guests: dict[str, Guest]) -> None:
    lost, other = lab.hosts
    lab.cloud.ec2.create_placement_group(GroupName="cut-off", Strategy="spread")
    with GuestsUntouched(lab, *guests.values()):
        asked = {lab.host_of(i).name: i for i in lab.ask(2, group="cut-off")}
        lab.wait_step(asked[lost.name], BuildStep.DISK)
        with lost.cut_off():
            lab.wait_state(State.ACTIVE, asked[other.name])
            lab.wait_state(State.UNKNOWN, guests[lost.name].id)
        lab.wait_state(State.ACTIVE, asked[lost.name])
        for host in lab.hosts:
            host.guests.assert_only(guests[host.name].id, asked[host.name])
        lab.terminate(*asked.values())
    lab.cloud.ec2.delete_placement_group(GroupName="cut-off")


@each_row(
    "step",
    {
        step.value: Row(
            "kill -9 of one host's agent",
            f"its build has its {step.value}, while the other host builds too",
            "both are ACTIVE after its next start, each built once",
        )
        for step in (BuildStep.IMAGE, BuildStep.PROCESS)
    },
)
def test_an_agent_killed_in_a_build(lab: PairLab, guests: dict[str, Guest], step: str) -> None:
    for host in lab.hosts:
        host.guests.forget_images()
    lab.cloud.ec2.create_placement_group(GroupName=step, Strategy="spread")
    with GuestsUntouched(lab, *guests.values()):
        asked = {lab.host_of(i).name: i for i in lab.ask(2, group=step)}
        killed = lab.hosts[0]
        lab.wait_step(asked[killed.name], BuildStep(step))
        killed.kill_agent()
        killed.start_agent()
        lab.wait_state(State.ACTIVE, *asked.values())
        for host in lab.hosts:
            host.guests.assert_only(guests[host.name].id, asked[host.name])
        lab.terminate(*asked.values())
    lab.cloud.ec2.delete_placement_group(GroupName=step)


# The last one: it is one guest's end.
@row(
    fault="power failure of a host that is given up (`pileus host remove --force`)",
    strikes="a guest runs there, another one on the other host",
    seen="its instance ends in ERROR, with the reason; its claim is free, its address in quarantine; the next one "
    "gets on the other host",
)
@row(
    fault="a host boots after it was given up",
    strikes="a guest ran there before; its agent asks whether it may start it again",
    seen="it starts nothing; the guest is removed at the second look, its disk is kept, its address leaves quarantine; "
    "when the host has joined again it takes new ones",
)
def test_a_host_that_was_given_up(lab: PairLab, guests: dict[str, Guest]) -> None:
    gone, other = lab.hosts
    lost = guests.pop(gone.name)
    with GuestsUntouched(lab, *guests.values()):
        assert "is up; --force removes only" in lab.cloud.pileus_fails("host", "remove", "--force", gone.name)
        gone.power_off()
        lab.wait_state(State.UNKNOWN, lost.id)
        lab.cloud.pileus("host", "remove", "--force", gone.name)
        lab.wait_state(State.ERROR, lost.id)
        assert "was force-removed" in lab.cloud.pileus("instance", "explain", lost.id)
        assert lab.holds(lost.id) == 0
        assert lab.cloud.pileus_json("host", "show", gone.name)["quarantined"]
        lab.assert_clean()
        (after,) = lab.ask()
        lab.wait_state(State.ACTIVE, after)
        other.guests.assert_only(guests[other.name].id, after)

        lab.power_on(gone)
        assert gone.guests.folders() == {lost.id}
        gone.start_agent()
        lab.wait(lambda: not gone.guests.folders(), what=lab.logs)
        gone.guests.assert_only()
        lab.wait(lambda: not lab.cloud.pileus_json("host", "show", gone.name)["quarantined"], what=lab.logs)
        assert lab.states()[lost.id] is State.ERROR
        lab.up()
        (back,) = lab.ask()
        assert lab.host_of(back) is gone, "it has the fewest guests"
        lab.wait_state(State.ACTIVE, back)
        lab.terminate(after, back, lost.id)
