"""A cloud behind a listening API; what scheduler, network and agents would do is done by ``Site.work``."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from sqlalchemy import select

from api.service import ApiService
from controller.conf.settings import Api, Database, General, Quota, Settings
from controller.db import database
from controller.db.models import Image, Instance
from controller.domain.clock import system_clock
from controller.domain.ids import IMAGE
from controller.domain.images import ImageState
from controller.domain.messages import GuestReport, GuestsChanged, HostReported
from controller.domain.states import Event, State
from controller.operations.accounts import projects, users
from controller.operations.cloud import Cloud, Transaction
from controller.operations.database import schema
from controller.operations.hosts import renewal
from controller.operations.instances import instance_types
from controller.operations.instances.reports import apply_reports
from controller.operations.instances.transitions import lock_instances, transition
from controller.operations.secrets import create_key_file
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.bus import FakeBus
from tests.labs.empty_database import create_tables

REGION = "pileus"
_OUTCOME = {
    State.BUILDING: Event.RUNNING,
    State.STARTING: Event.RUNNING,
    State.REBOOTING: Event.RUNNING,
    State.STOPPING: Event.SHUT_OFF,
    State.DELETING: Event.GONE,
}


class Site:
    """The cloud, its API on a free port, and one project with a user."""

    def __init__(self, url: str, folder: Path, **api: Any) -> None:
        self.settings = Settings(
            general=General(state_dir=str(folder), cloud_id="0000c10d"),
            database=Database(url=url),
            api=Api(**{"listen_port": 0, "region": REGION, "console_timeout_s": 0.2, **api}),
            quota=Quota(instances=500),
        )
        create_key_file(self.settings.secret_key_file)
        create_tables(self.settings)
        self.offset = timedelta()
        self.bus = FakeBus()
        self.cloud = Cloud(self.settings, database.Database(self.settings), self.bus, self.now)
        self.service = ApiService(self.cloud)
        self.service.start()
        self.url = f"http://127.0.0.1:{self.service.port}"
        self.cloud.write(schema.ensure_cloud_row)
        self.cloud.write(instance_types.seed)
        self.project_id, self.user_id, self.key, self.secret = self.new_user("alice")
        self.image = ""

    def close(self) -> None:
        self.service.stop()
        self.cloud.database.close()

    def now(self) -> Any:
        return system_clock() + self.offset

    def new_user(self, name: str) -> tuple[str, str, str, str]:
        """A project and its one user: project id, user id, access key, secret."""

        def create(tx: Transaction) -> tuple[str, str, str, str]:
            project = projects.create_project(tx, name)
            user = users.create_user(tx, name, project.id, "password-of-some-length")
            key, secret = users.create_access_key(tx, user.id)
            return project.id, user.id, key.id, secret

        return self.cloud.write(create)

    def client(self, **changed: Any) -> Any:
        """boto3's own client; errors are seen at once, not tried again."""
        given = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "path": "", **changed}
        return boto3.client(
            "ec2",
            region_name=REGION,
            endpoint_url=self.url + given.pop("path"),
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            **given,
        )

    def environment(self) -> dict[str, str]:
        """What a shell has after sourcing cloudrc."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_EC2": f"{self.url}/ec2/",
        }

    def add_host(self, name: str = "host-1", *, vcpus: int = 64, zone: str = "") -> None:
        report = HostReported(
            host=name, at=self.now().isoformat(), boot_id="b", hypervisor="kvm", vcpus=vcpus, memory_mib=1 << 20,
            disk_gib=100_000, zone=zone,
        )  # fmt: skip
        self.cloud.write(lambda tx: renewal.renew_hosts(tx, [report]))

    def add_image(self, name: str = "demo", **columns: Any) -> str:
        def add(tx: Transaction) -> str:
            values = {
                "project_id": self.project_id, "public": True, "state": ImageState.AVAILABLE, "format": "qcow2",
                "sha256": "0" * 64, "size_bytes": 1, "virtual_size_bytes": 1 << 28, "architecture": "x86_64",
                "description": "", **columns,
            }  # fmt: skip
            image = Image(id=tx.ids.new(IMAGE), name=name, created_at=tx.now, **values)
            tx.session.add(image)
            return image.id

        return self.cloud.write(add)

    def work(self) -> None:
        """Place what is requested, and let the agents report that each guest is as desired."""
        self.cloud.write(_place)
        for message in self.cloud.read(_reports):
            self.cloud.write(lambda tx, m=message: apply_reports(tx, [m]))  # type: ignore[misc]

    def happen(self, event: Event, *ids: str, **said: str) -> None:
        """Have something happen to instances."""
        self.cloud.write(lambda tx: transition(tx, lock_instances(tx, sorted(ids)), event, **said))  # type: ignore[arg-type]

    @contextmanager
    def working(self) -> Iterator[None]:
        """``work`` over and over, in the background."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(0.05):
                self.work()

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _place(tx: Transaction) -> None:
    wanted = tx.session.scalars(select(Instance.reservation_id).where(Instance.state == State.REQUESTED).distinct())
    schedule(tx, sorted(wanted), HostCache())


def _reports(tx: Transaction) -> list[GuestsChanged]:
    by_host: dict[str, list[GuestReport]] = defaultdict(list)
    for instance in tx.session.scalars(select(Instance).where(Instance.state.in_(_OUTCOME), Instance.host_id != "")):
        report = GuestReport(instance.id, instance.generation, _OUTCOME[State(instance.state)])
        by_host[instance.host_id or ""].append(report)
    return [GuestsChanged(host, tuple(reports)) for host, reports in by_host.items()]


def each(action: Callable[[], Any], times: int) -> list[Any]:
    """The answers, or the errors, of doing it so many times at once."""
    answers: list[Any] = [None] * times
    barrier = threading.Barrier(times)

    def run(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = action()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


TYPE = "p1.tiny"


def run(site: Site, client: Any, count: int = 1, **more: Any) -> Any:
    return client.run_instances(ImageId=site.image, InstanceType=TYPE, MinCount=count, MaxCount=count, **more)


def ids_of(answer: Any) -> list[str]:
    return [i["InstanceId"] for i in answer["Instances"]]
