"""Something is killed at a random moment of a guest's life, round after round.

PILEUS_FAULT_SEED and PILEUS_FAULT_ROUNDS choose others than the ones of every run: what happens in which round follows
from the seed, where exactly it strikes does not.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from controller.domain.states import State
from tests.faults import row
from tests.labs.system.faults_lab import FaultsLab, Guest, GuestsUntouched, kill
from tests.labs.system.host_guests import BuildStep

SEED = int(os.environ.get("PILEUS_FAULT_SEED", "879"))
ROUNDS = int(os.environ.get("PILEUS_FAULT_ROUNDS", "6"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(300 + 60 * ROUNDS)]


class Victim(Enum):
    """What is killed, and started again unless a supervisor does."""

    LIBVIRTD = "libvirtd"
    LIBVIRTD_TWICE = "libvirtd, and the next one at once"
    CLOUD = "the cloud's process"
    CLOUD_AND_LIBVIRTD = "the cloud's process and libvirtd"
    DNSMASQ = "dnsmasq"


class Phase(Enum):
    """What the instances are asked for when it strikes."""

    BUILD = "build"
    STOP = "stop"
    START = "start"
    TERMINATE = "terminate"


@dataclass(frozen=True)
class Round:
    """What happens in one round; ``after`` is waited for first, then ``pause_s``."""

    victim: Victim
    phase: Phase
    after: BuildStep | None
    pause_s: float
    count: int


def rounds(seed: int, number: int) -> list[Round]:
    """The rounds of a seed; more of them begin with the same ones."""
    random_ = random.Random(seed)
    made = []
    for _ in range(number):
        phase = random_.choice([Phase.BUILD, *Phase])
        after = (
            random_.choice([None, BuildStep.DISK, BuildStep.DOMAIN, BuildStep.PROCESS])
            if phase is Phase.BUILD
            else None
        )
        pause_s = random_.random() * random_.choice([0.03, 0.3, 1.0])
        made.append(Round(random_.choice(list(Victim)), phase, after, pause_s, random_.choice([1, 1, 2])))
    return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultsLab]:
    with FaultsLab(tmp_path_factory.mktemp("random-faults"), programs=Path(sys.executable).parent) as made:
        yield made


@pytest.fixture(scope="module")
def guest(lab: FaultsLab) -> Guest:
    """The one that nothing may touch."""
    (guest,) = lab.boot()
    return guest


@row(
    fault="kill -9 of libvirtd (once, or twice in a row), the cloud's process, both, or dnsmasq",
    strikes="a random moment of a build, a stop, a start or a removal, round after round",
    seen="each request ends as asked, every guest is there once, the audit is clean after each round; another guest "
    "runs on untouched",
)
def test_a_random_moment(lab: FaultsLab, guest: Guest) -> None:
    for number, each in enumerate(rounds(SEED, ROUNDS)):
        print(f"seed {SEED}, round {number}: {each}")
        with GuestsUntouched(lab, guest):
            _round(lab, guest, each)


def _round(lab: FaultsLab, guest: Guest, what: Round) -> None:
    ids = lab.ask(what.count)
    if what.after is not None:
        lab.wait_step(ids[0], what.after)
    _strike_in(Phase.BUILD, lab, what)
    lab.wait_state(State.ACTIVE, *ids)
    if what.phase in (Phase.STOP, Phase.START):
        lab.cloud.ec2.stop_instances(InstanceIds=ids)
        _strike_in(Phase.STOP, lab, what)
        lab.wait_state(State.STOPPED, *ids)
        lab.cloud.ec2.start_instances(InstanceIds=ids)
        _strike_in(Phase.START, lab, what)
        lab.wait_state(State.ACTIVE, *ids)
    lab.wait(lab.host_up)
    lab.host.assert_only(guest.id, *ids)
    lab.cloud.ec2.terminate_instances(InstanceIds=ids)
    _strike_in(Phase.TERMINATE, lab, what)
    lab.wait_state(State.DELETED, *ids)
    lab.wait(lambda: len(lab.dnsmasq()) == 1)
    lab.host.assert_only(guest.id)
    lab.assert_clean()


def _strike_in(phase: Phase, lab: FaultsLab, what: Round) -> None:
    if what.phase is not phase:
        return
    time.sleep(what.pause_s)
    libvirtd = lab.libvirtd()
    match what.victim:
        case Victim.CLOUD | Victim.CLOUD_AND_LIBVIRTD:
            lab.kill_daemon()
        case Victim.DNSMASQ:
            for pid in lab.dnsmasq():
                kill(pid)
    if what.victim in (Victim.LIBVIRTD, Victim.LIBVIRTD_TWICE, Victim.CLOUD_AND_LIBVIRTD):
        for pid in libvirtd:
            kill(pid)
    if what.victim is Victim.LIBVIRTD_TWICE:
        lab.wait(lambda: bool(lab.libvirtd()))
        for pid in lab.libvirtd():
            kill(pid)
    if what.victim in (Victim.CLOUD, Victim.CLOUD_AND_LIBVIRTD):
        lab.up()
