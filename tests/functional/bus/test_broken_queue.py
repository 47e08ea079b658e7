"""A quorum queue that the broker knows and cannot serve: what RabbitMQ 3.10 makes of a new one when it is killed."""

import secrets
from pathlib import Path

import pytest
from kombu import Connection

from controller.bus.bus import Bus
from controller.bus.repair import repair_queues
from controller.bus.topology import Topology
from controller.conf import Settings
from controller.domain.errors import BusUnavailable
from controller.domain.messages import ScheduleReservation
from tests.faults import row
from tests.labs.bus_listener import Listener, nothing
from tests.labs.cloud import make_settings
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.functional

BELL = ScheduleReservation("r-0123456789abcdef0")


@pytest.fixture
def settings(rabbitmq: RabbitMQ, tmp_path: Path) -> Settings:
    return make_settings(
        tmp_path,
        bus__url=rabbitmq.url,
        bus__retry_after_s=0.2,
        bus__publish_timeout_s=2.0,
        bus__heartbeat_s=3,
        DEFAULT__cloud_id=secrets.token_hex(4),
    )


def _declare_then_kill(settings: Settings, rabbitmq: RabbitMQ) -> None:
    topology = Topology(settings)
    topology_queues = [topology.queue(name) for name in ("network", "events", "schedule")]
    with Connection(settings.bus.url) as connection:
        channel = connection.channel()
        for queue in topology_queues:
            queue(channel).declare()
    rabbitmq.kill()
    rabbitmq.start()


@row(
    fault="the broker is killed within half a second of a queue's declaration, which leaves it without anything behind",
    strikes="a queue that is about to be consumed",
    seen="its consumer deletes it and declares it anew by itself; messages arrive again",
)
def test_consumer_repairs_a_broken_queue(settings: Settings, rabbitmq: RabbitMQ) -> None:
    _declare_then_kill(settings, rabbitmq)
    bus = Bus(settings)
    with Listener(settings, ["schedule"], nothing) as listener:
        wait_until(lambda: _sent(bus), deadline_s=90, what=lambda: "nothing can be published")
        wait_until(lambda: BELL in listener.got, deadline_s=90, what=lambda: "nothing arrives")
    bus.close()


def test_queues_that_work_are_left_alone(settings: Settings, rabbitmq: RabbitMQ) -> None:
    bus = Bus(settings)
    bus.send(BELL)
    queue = Topology(settings).queue("schedule")
    assert repair_queues(settings, [queue]) == []
    with Listener(settings, ["schedule"], nothing) as listener:
        wait_until(lambda: listener.got == [BELL], deadline_s=20, what=lambda: str(listener.got))
    bus.close()


def _sent(bus: Bus) -> bool:
    try:
        bus.send(BELL)
    except BusUnavailable:
        return False
    return True
