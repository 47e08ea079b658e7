"""Clouds for tests: real operations and a real database, a clock that the test turns, a bus that remembers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from controller.conf import Settings, load_settings
from controller.db.database import Database
from controller.db.models import Image, Instance
from controller.domain.guests import Power
from controller.domain.ids import IMAGE, IdSource
from controller.domain.images import ImageState
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    GuestState,
    HostReported,
    ReconcileGuests,
    ScheduleReservation,
)
from controller.domain.states import Event, State
from controller.domain.wire import VERSION
from controller.operations.accounts import projects, users
from controller.operations.cloud import Cloud, Transaction
from controller.operations.database import schema
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.instances import instance_types, views
from controller.operations.instances.launch import launch
from controller.operations.instances.launch_requests import LaunchRequest
from controller.operations.instances.reports import apply_reports
from controller.operations.instances.views import InstanceView
from controller.operations.secrets import create_key_file
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.bus import FakeBus
from tests.labs.empty_database import create_tables

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class TurnedClock:
    """Stands still until the test advances it."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def make_settings(state: Path, database_url: str = "", **options: Any) -> Settings:
    """Settings of a cloud below ``state``; ``options`` are section__name=value."""
    overrides: dict[tuple[str, str], Any] = {
        ("DEFAULT", "state_dir"): str(state),
        ("DEFAULT", "cloud_id"): "c10dc10d",
        ("database", "url"): database_url,
        ("network", "driver"): "none",
        ("compute", "driver"): "simulated",
    }
    for name, value in options.items():
        section, _, option = name.partition("__")
        overrides[section, option] = value
    return load_settings(None, overrides)


@dataclass
class TestCloud:
    """A cloud with a project, a user and an image, driven by hand."""

    __test__ = False

    cloud: Cloud
    clock: TurnedClock
    bus: FakeBus
    project_id: str = ""
    user_id: str = ""
    image_id: str = ""

    @classmethod
    def create(cls, state: Path, database_url: str = "", **options: Any) -> "TestCloud":
        settings = make_settings(state, database_url, **options)
        create_key_file(settings.secret_key_file)
        create_tables(settings)
        clock, bus = TurnedClock(), FakeBus()
        cloud = Cloud(settings, Database(settings), bus, clock, IdSource(Random(7)), clock)
        made = cls(cloud, clock, bus)
        cloud.write(made._populate)
        return made

    def _populate(self, tx: Transaction) -> None:
        schema.ensure_cloud_row(tx)
        instance_types.seed(tx)
        self.project_id = projects.create_project(tx, "demo").id
        self.user_id = users.create_user(tx, "demo", self.project_id, "a long password").id
        self.image_id = tx.ids.new(IMAGE)
        tx.session.add(
            Image(
                id=self.image_id,
                project_id=self.project_id,
                name="tiny",
                public=True,
                state=ImageState.AVAILABLE,
                format="raw",
                sha256="0" * 64,
                size_bytes=512,
                virtual_size_bytes=512,
                architecture="x86_64",
                created_at=tx.now,
            )
        )

    def close(self) -> None:
        self.cloud.database.close()

    # --- what hosts do ---

    def heartbeat(self, host: str = "h1", **changes: Any) -> None:
        message = self.beat(host, **changes)
        self.cloud.write(lambda tx: apply_heartbeats(tx, [message]))

    def beat(self, host: str = "h1", **changes: Any) -> HostReported:
        values: dict[str, Any] = {
            "host": host,
            "at": self.clock().isoformat(),
            "boot_id": f"{host}-b1",
            "speaks": VERSION,
            "hypervisor": "simulated",
            "vcpus": 8,
            "memory_mib": 16384,
            "disk_gib": 100,
        }
        return HostReported(**{**values, **changes})

    def report(self, instance_ids: Iterable[str], event: Event, reason: str = "") -> None:
        """The hosts of these instances report the event at the newest generation."""
        for view in self.views(instance_ids):
            report = GuestReport(view.id, view.generation, event, reason)
            message = GuestsChanged(view.host_id or "", (report,))
            self.cloud.write(lambda tx, m=message: apply_reports(tx, [m]))  # type: ignore[misc]

    # --- what users do ---

    def request(self, count: int = 1, **changes: Any) -> LaunchRequest:
        values: dict[str, Any] = {
            "project_id": self.project_id,
            "user_id": self.user_id,
            "image_id": self.image_id,
            "instance_type": "p1.tiny",
            "min_count": count,
            "max_count": count,
        }
        return LaunchRequest(**{**values, **changes})

    def launch(self, count: int = 1, **changes: Any) -> list[str]:
        request = self.request(count, **changes)
        return self.cloud.write(lambda tx: [i.id for i in launch(tx, request).instances])

    # --- what a test looks at ---

    def views(self, instance_ids: Iterable[str] | None = None) -> list[InstanceView]:
        ids = None if instance_ids is None else list(instance_ids)
        return self.cloud.read(lambda tx: views.list_instances(tx, None, ids))

    def states(self, instance_ids: Iterable[str] | None = None) -> list[State]:
        return [State(v.state) for v in self.views(instance_ids)]

    def instance(self, instance_id: str) -> Instance:
        """The row, also of an instance that lists do not show any more."""
        return self.cloud.read(lambda tx: tx.session.get_one(Instance, instance_id))

    def commands(self) -> list[ReconcileGuests]:
        return self.bus.take(ReconcileGuests)


def place(site: TestCloud) -> list[int]:
    return [
        site.cloud.write(lambda tx, m=m: schedule(tx, [m.reservation_id], HostCache()))  # type: ignore[misc]
        for m in site.bus.take(ScheduleReservation)
    ]


def active(site: TestCloud, count: int = 1) -> list[str]:
    ids = site.launch(count)
    place(site)
    site.report(ids, Event.RUNNING)
    assert site.states(ids) == [State.ACTIVE] * count
    site.bus.sent.clear()
    return ids


def shown(*ids: str, power: Power = Power.RUNNING) -> tuple[GuestState, ...]:
    return tuple(GuestState(i, 1, power) for i in ids)
