"""The agent of a host fails, or its host does, while the rest of the site goes on.

Each service is a process of its own, on RabbitMQ; two real guests run from the first test to the last.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.states import State
from tests.faults import Row, each_row, row
from tests.labs.system.faults_lab import Guest, GuestsUntouched, frozen, kill
from tests.labs.system.host_guests import BuildStep
from tests.labs.system.site_lab import SiteLab, no_more_files, no_new_processes

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteLab]:
    with SiteLab(tmp_path_factory.mktemp("agent-faults"), programs=Path(sys.executable).parent) as made:
        yield made


@pytest.fixture(scope="module")
def bystanders(lab: SiteLab) -> list[Guest]:
    return lab.boot(2)


@pytest.fixture
def guests(lab: SiteLab, bystanders: list[Guest]) -> Iterator[list[Guest]]:
    """After the test: the two guests and nothing else; none of them was restarted."""
    guests = bystanders
    with GuestsUntouched(lab, *guests):
        yield guests
        lab.up()
        ids = [g.id for g in guests]
        lab.wait_state(State.ACTIVE, *ids)
        assert {i for i, s in lab.states().items() if s is not State.DELETED} == set(ids)
        lab.host.assert_only(*ids)
        lab.assert_clean()


@each_row(
    "step",
    {
        step.value: Row(
            "kill -9 of the agent",
            f"a build has its {step.value}",
            "built once and ACTIVE after its next start; nothing is left after its end",
        )
        for step in (BuildStep.DISK, BuildStep.DOMAIN, BuildStep.PROCESS)
    },
)
def test_killed_in_a_build(lab: SiteLab, guests: list[Guest], step: str) -> None:
    (asked,) = lab.ask()
    lab.wait_step(asked, BuildStep(step))
    kill(lab.agent())
    lab.start("compute")
    lab.wait_state(State.ACTIVE, asked)
    lab.host.assert_only(asked, *(g.id for g in guests))
    lab.terminate(asked)


@row(
    fault="SIGSTOP of the agent for longer than a host may be silent, SIGCONT",
    strikes="guests run",
    seen="UNKNOWN, then ACTIVE again by themselves; never stopped",
)
def test_a_frozen_agent(lab: SiteLab, guests: list[Guest]) -> None:
    ids = [g.id for g in guests]
    with frozen(lab.agent()):
        lab.wait_state(State.UNKNOWN, *ids)
        assert not lab.host_up()
    lab.wait_state(State.ACTIVE, *ids)


@row(
    fault="a host silent for longer than a delete may take, then back",
    strikes="an instance was terminated meanwhile",
    seen="DELETING, and shown as overdue; DELETED when the host is back and the guest, which still ran there, is gone",
)
def test_a_host_that_comes_back(lab: SiteLab, guests: list[Guest]) -> None:
    (deleted,) = lab.ask()
    lab.wait_state(State.ACTIVE, deleted)
    kill(lab.agent())
    lab.wait_state(State.UNKNOWN, deleted)
    lab.cloud.ec2.terminate_instances(InstanceIds=[deleted])
    lab.wait_state(State.DELETING, deleted)
    lab.expire(deleted)
    lab.wait(lambda: "EXPIRED" in lab.cloud.pileus("instance", "explain", deleted), what=lab.logs)
    assert lab.states()[deleted] is State.DELETING
    assert lab.cloud.pileus_json("status")["overdue"] == {"DELETING": 1}
    assert len(lab.qemu(deleted)) == 1, "it was cut off, not ended"
    assert lab.vcpus_used() == 1 + len(guests)
    lab.start("compute")
    lab.wait_state(State.DELETED, deleted)
    assert not lab.qemu(deleted)
    assert lab.vcpus_used() == len(guests)


@row(
    fault="the agent may open no more files",
    strikes="a build is asked for",
    seen="the build waits and is ACTIVE once there are files again; the agent goes on",
)
def test_no_more_files(lab: SiteLab, guests: list[Guest]) -> None:
    with no_more_files(lab.agent()):
        (asked,) = lab.ask()
        lab.wait(lambda: lab.agent_said("Too many open files", "unable to open database file"), what=lab.logs)
    lab.wait_state(State.ACTIVE, asked)
    lab.terminate(asked)


@row(
    fault="the agent can start no program and no thread",
    strikes="the first build after its start is asked for",
    seen="the build waits and is ACTIVE once there are threads again; the agent goes on",
)
def test_no_new_threads(lab: SiteLab, guests: list[Guest]) -> None:
    lab.restart_agent()
    with no_new_processes(lab.agent()):
        (asked,) = lab.ask()
        lab.wait(lambda: lab.agent_said("can't start new thread"), what=lab.logs)
    lab.wait_state(State.ACTIVE, asked)
    lab.terminate(asked)


@row(
    fault="the agent can start no program and no thread",
    strikes="a build is asked for, and threads are idle",
    seen="the build waits and is ACTIVE once there are processes again; the agent goes on",
)
def test_no_new_programs(lab: SiteLab, guests: list[Guest]) -> None:
    with no_new_processes(lab.agent()):
        (asked,) = lab.ask()
        lab.wait(lambda: lab.agent_said("Resource temporarily unavailable"), what=lab.logs)
    lab.wait_state(State.ACTIVE, asked)
    lab.terminate(asked)


@row(
    fault="the disk of the host is full",
    strikes="a build is asked for",
    seen="ERROR, and the reason says that no space is left; nothing half-made stays, others run on",
)
def test_a_full_disk(lab: SiteLab, guests: list[Guest]) -> None:
    with lab.disk_full():
        (asked,) = lab.ask()
        lab.wait_state(State.ERROR, asked)
        assert "No space left on device" in lab.cloud.pileus("instance", "explain", asked)
        lab.wait(lambda: lab.vcpus_used() == len(guests), what=lab.logs)
        lab.host.assert_only(*(g.id for g in guests))
    lab.terminate(asked)
    (after,) = lab.ask()
    lab.wait_state(State.ACTIVE, after)
    lab.terminate(after)


@row(
    fault="the disk of the host is full",
    strikes="a guest writes",
    seen="the guest waits, and goes on by itself when there is room again; it was not restarted, nothing is lost",
)
def test_a_guest_writes_to_a_full_disk(lab: SiteLab, guests: list[Guest]) -> None:
    (writer,) = lab.boot()
    with GuestsUntouched(lab, writer):
        with lab.disk_full():
            write = "(dd if=/dev/urandom of=/root/written bs=1M count=16; sync; touch /root/done) >/dev/null 2>&1 &"
            lab.shell.run(writer.address, write)
            lab.wait(lambda: not lab.shell.succeeds(writer.address, "true"), what=lab.logs)
        lab.wait(lambda: lab.shell.succeeds(writer.address, "test -e /root/done"), deadline_s=120, what=lab.logs)
    assert lab.states()[writer.id] is State.ACTIVE
    lab.terminate(writer.id)


# The last one: it is these guests' end.
@row(
    fault="a host gone for good, back after it was given up (`pileus host remove --force`)",
    strikes="two guests run there",
    seen="their instances end in ERROR at once, claims are free, addresses in quarantine; back again, it is told to "
    "remove them at the second look, and keeps their disks",
)
def test_a_host_that_was_given_up(lab: SiteLab, bystanders: list[Guest]) -> None:
    ids = [g.id for g in bystanders]
    assert "is up; --force removes only" in lab.cloud.pileus_fails("host", "remove", "--force", "node")
    kill(lab.agent())
    lab.wait_state(State.UNKNOWN, *ids)
    lab.cloud.pileus("host", "remove", "--force", "node")
    lab.wait_state(State.ERROR, *ids)
    assert "was force-removed" in lab.cloud.pileus("instance", "explain", ids[0])
    lab.assert_clean()
    assert all(len(lab.qemu(i)) == 1 for i in ids), "no agent could end them yet"
    lab.start("compute")
    lab.wait(lambda: not any(map(lab.qemu, ids)), what=lab.logs)
    lab.wait(lambda: not lab.host.folders(), what=lab.logs)
    lab.host.assert_only()
    assert lab.host.kept_disks() == sorted(ids)
    (after,) = lab.ask()
    lab.wait_state(State.ACTIVE, after)
    lab.host.assert_only(after)
    lab.terminate(after, *ids)
    lab.assert_clean()
