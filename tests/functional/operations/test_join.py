"""Joining for real: a race for a token's last use on three engines, and a host from `pileus join` to a guest."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from api.service import ApiService
from controller.conf import load_settings
from controller.db.models import Host
from controller.domain.errors import AuthenticationFailed
from controller.domain.messages import HostReported
from controller.domain.states import State
from controller.operations.cloud import Cloud
from controller.operations.hosts import hosts, join, renewal
from controller.workers.service import ControllerService
from network.service import NetworkService
from scheduler.service import SchedulerService
from tests.labs.cloud import TestCloud
from tests.labs.races import RACERS, race
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.functional

DEADLINE_S = 60


def facts(name: str) -> HostReported:
    return HostReported(name, "2026-01-01T00:00:00+00:00", f"boot-{name}", "kvm", 8, 16384, 100)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(
        tmp_path, database_url, database__pool_size=RACERS, database__retries=30, bus__url="amqp://nobody//"
    )
    yield made
    made.close()


def token(cloud: Cloud, uses: int) -> str:
    return cloud.write(lambda tx: join.create_token(tx, "*", uses, timedelta(hours=1))[1])


def test_the_last_use_is_had_once(site: TestCloud) -> None:
    secret = token(site.cloud, 3)
    results = race(lambda n: site.cloud.write(lambda tx: join.join(tx, secret, facts(f"h{n}"))).host)
    won = sorted(r for r in results if isinstance(r, str))
    assert len(won) == 3
    assert all(isinstance(r, AuthenticationFailed) for r in results if not isinstance(r, str))
    assert sorted(h.id for h in site.cloud.read(hosts.list_hosts)) == won
    assert site.cloud.read(join.list_tokens)[0].uses_left == 0


def test_one_host_that_asks_many_times_joins_once(site: TestCloud) -> None:
    secret = token(site.cloud, 5)
    results = race(lambda _: site.cloud.write(lambda tx: join.join(tx, secret, facts("h1"))).renewed)
    assert sorted(map(str, results)) == ["False"] + ["True"] * (RACERS - 1)
    assert site.cloud.read(join.list_tokens)[0].uses_left == 4


def test_heartbeats_and_claims_of_many_do_not_lock_each_other_out(site: TestCloud) -> None:
    secret = token(site.cloud, 50)
    host_table = [facts(f"h{n:02d}") for n in range(50)]
    for each in host_table:
        site.cloud.write(lambda tx, f=each: join.join(tx, secret, f))  # type: ignore[misc]

    def beat(n: int) -> int:
        beats = host_table[n:] + host_table[:n]
        return len(site.cloud.write(lambda tx: renewal.renew_hosts(tx, beats)))

    assert race(lambda n: [beat(n) for _ in range(5)]) == [[50] * 5] * RACERS
    assert all(h.up for h in site.cloud.read(hosts.list_hosts))


# --- a site: the API, the services, and a host in processes of its own ---


@contextmanager
def services(cloud: Cloud) -> Iterator[ApiService]:
    """The control plane, on the real broker."""
    with ExitStack() as stack:
        api = ApiService(cloud)
        for service in (NetworkService(cloud), SchedulerService(cloud), ControllerService(cloud), api):
            service.start()
            stack.callback(service.stop)
        yield api


def pileus(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "controller.cli.main", "--state", str(folder), *arguments]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PILEUS_STATE"}


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        pileus(folder, *arguments), capture_output=True, text=True, check=False, timeout=60, env=environment()
    )


@contextmanager
def agent(folder: Path) -> Iterator[None]:
    """`pileus serve compute`, until the end."""
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen(pileus(folder, "serve", "compute"), stderr=log, env=environment())
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.05)


def test_a_host_joins_and_carries_guests(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    made = TestCloud.create(tmp_path / "site", bus__url=rabbitmq.url, api__listen_port=0, api__zone="z5")
    made.cloud.database.close()
    made.cloud = Cloud.connect(made.cloud.settings)
    folder = tmp_path / "agent"
    with ExitStack() as stack:
        stack.callback(made.close)
        stack.callback(made.cloud.bus.close)  # type: ignore[attr-defined]
        api = stack.enter_context(services(made.cloud))
        url = f"http://127.0.0.1:{api.port}"
        secret = token(made.cloud, 2)

        refused = run(folder, "join", url, "nonsense", "--name", "node", "--simulated", "2")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no such join token" in refused.stderr
        assert not (folder / "pileus.conf").exists()

        done = run(folder, "join", url, secret, "--name", "node", "--simulated", "2", "--label", "ssd")
        assert (done.returncode, done.stderr) == (0, "")
        file = folder / "pileus.conf"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        told = load_settings(file)
        assert (told.bus.url, told.database.url) == (rabbitmq.url, "")
        assert not (folder / "pileus.db").exists()

        def host_table() -> list[Host]:
            return list(made.cloud.read(hosts.list_hosts))

        assert [(h.id, h.up, h.labels, h.zone) for h in host_table()] == [
            ("node-0001", False, "ssd", "z5"),
            ("node-0002", False, "ssd", "z5"),
        ]
        assert run(folder, "join", url, secret).returncode == 0  # the token is used up, the hosts are the same

        stack.enter_context(agent(folder))
        until(lambda: all(h.up and h.mode == "READY" for h in host_table()), "hosts up")
        ids = made.launch(4)
        until(lambda: made.states(ids) == [State.ACTIVE] * 4, "instances ACTIVE")
        assert {made.instance(i).host_id for i in ids} == {"node-0001", "node-0002"}
        assert {h.drift for h in host_table()} == {""}
