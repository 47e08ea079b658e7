"""Doorbells that come together are handled in short transactions, however many instances they are for."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from controller.db.models import InstanceEvent
from controller.domain.messages import ScheduleReservation
from controller.domain.states import State
from scheduler import service
from scheduler.service import Placer
from tests.labs.cloud import TestCloud


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestCloud]:
    monkeypatch.setattr(service, "MOST_INSTANCES", 10)
    made = TestCloud.create(tmp_path)
    made.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)
    yield made
    made.close()


def test_each_has_no_more_than_so_many_instances(site: TestCloud) -> None:
    for count in (3, 6, 2, 25, 1):
        site.launch(count)
    bells = site.bus.take(ScheduleReservation)
    placed: list[int] = []

    class Counted(Placer):
        """Notes how many are placed after each transaction."""

        def _portions(self, wanted: list[str]) -> object:  # type: ignore[override]
            for portion in super()._portions(wanted):
                yield portion
                placed.append(Counter(site.states())[State.BUILDING])

    Counted(site.cloud)(bells)
    assert placed == [9, 11, 36, 37], "a reservation of more comes alone"


def test_what_is_placed_already_costs_no_transaction(site: TestCloud) -> None:
    ids = [*site.launch(2), *site.launch(2)]
    bells = site.bus.take(ScheduleReservation)
    placer = Placer(site.cloud)
    placer(bells)
    placer(bells)
    told = site.cloud.read(
        lambda tx: list(tx.session.scalars(select(InstanceEvent.instance_id).where(InstanceEvent.event == "PLACED")))
    )
    assert sorted(told) == sorted(ids)
