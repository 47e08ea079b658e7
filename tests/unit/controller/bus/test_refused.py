"""A broker that refuses for a moment: a quorum queue that was declared just now has no leader yet."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.bus.bus import Bus
from controller.bus.publisher import Envelope, RefusedError
from controller.domain.errors import BusUnavailable
from controller.domain.messages import ScheduleReservation
from tests.labs.cloud import make_settings

BELL = ScheduleReservation("r-0123456789abcdef0")


class RefusingPublisher:
    """Refuses so many times, then takes everything."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.taken: list[Envelope] = []

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        if self.left:
            self.left -= 1
            raise RefusedError("the broker refused a message: a queue is full or has no leader")
        self.taken += envelopes

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    monkeypatch.setattr("controller.bus.bus._REFUSED_PAUSES_S", (0.001, 0.001))
    return Bus(make_settings(tmp_path, bus__url="memory://"))


def test_what_is_refused_for_a_moment_is_sent_again(bus: Bus) -> None:
    publisher = RefusingPublisher(5)
    bus._publisher = publisher  # type: ignore[assignment]
    bus.send(BELL)
    assert [envelope.routing_key for envelope in publisher.taken] == ["schedule"]


def test_what_is_refused_for_good_is_told_to_the_caller(bus: Bus) -> None:
    bus._publisher = RefusingPublisher(10**6)  # type: ignore[assignment]
    with pytest.raises(BusUnavailable, match="no leader"):
        bus.send(BELL)
