"""What a process needs is computed from its services, and checked before it starts."""

import resource
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from controller import limits
from controller.cli.services import make_services
from controller.conf import Settings
from controller.domain.errors import ConfigurationError
from controller.installed_services import service_names
from controller.operations.secrets import create_key_file
from tests.labs.cloud import make_settings

SITE = {"bus__url": "amqp://guest:guest@localhost//", "network__driver": "linux", "compute__driver": "libvirt"}
PROGRAM = """
import resource, sys
from pathlib import Path
from controller.limits import check_open_files
from tests.labs.cloud import make_settings

soft, hard = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
settings = make_settings(Path("/nonexistent"), "postgresql+psycopg://db/pileus", bus__url="amqp://localhost//")
try:
    check_open_files(["api"], settings)
except Exception as error:
    print(type(error).__name__, error)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def settings(tmp_path: Path, **options: Any) -> Settings:
    return make_settings(tmp_path, "postgresql+psycopg://db/pileus", **{**SITE, **options})


def limited(soft: int, hard: int) -> list[str]:
    argv = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if "limit of open files raised" not in line]


def test_a_default_cloud_has_what_it_needs(tmp_path: Path) -> None:
    limits.check_pool(service_names(), Settings())
    for name in service_names():
        limits.check_pool([name], settings(tmp_path))


def test_a_pool_that_is_too_small_is_refused(tmp_path: Path) -> None:
    small = settings(tmp_path, database__pool_size=2, database__max_overflow=3, api__threads=16)
    with pytest.raises(ConfigurationError) as caught:
        limits.check_pool(["api", "scheduler"], small)
    assert "pool_size 2 and max_overflow 3 give one process 5 connections; 17 of its threads" in str(caught.value)
    assert "(api 16, scheduler 1): set pool_size to 14 or more" in str(caught.value)
    limits.check_pool(["api"], settings(tmp_path, database__pool_size=13, database__max_overflow=3, api__threads=16))
    limits.check_pool(["compute"], small)  # it has no database


def test_connections_are_bounded_by_threads_and_by_the_pool(tmp_path: Path) -> None:
    assert limits.connections(["api"], settings(tmp_path, api__threads=12)) == 13
    assert limits.connections(["api"], settings(tmp_path, api__threads=64)) == 23
    assert limits.connections(["compute"], settings(tmp_path)) == 0


@pytest.mark.parametrize("name", ["scheduler", "controller", "network"])
def test_every_thread_of_a_service_is_counted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    init = threading.Thread.__init__

    def note(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
        made.append(str(kwargs.get("name")))
        init(self, *args, **kwargs)

    monkeypatch.setattr(threading.Thread, "__init__", note)
    conf = settings(tmp_path, scheduler__consumers=3)
    create_key_file(conf.secret_key_file)
    with ExitStack() as stack:
        make_services([name], conf, stack)
        assert len(made) == limits.database_threads(name, conf), made


def test_open_files_by_what_they_are_for(tmp_path: Path) -> None:
    found = limits.open_files(["scheduler"], settings(tmp_path, scheduler__consumers=4))
    assert found == {"the process": 64, "database": 22, "bus": 10}
    assert limits.open_files(["api"], settings(tmp_path))["api"] == 1511
    assert limits.open_files(["compute"], settings(tmp_path))["compute"] == 3 + (4 + 16) * 8
    few, many = (
        limits.open_files(["compute"], settings(tmp_path, compute__driver="simulated", compute__simulated_hosts=n))
        for n in (1, 500)
    )
    assert few == many  # they share their files
    embedded = limits.open_files(service_names(), Settings())
    assert "bus" not in embedded
    assert embedded["database"] == 66


def test_a_soft_limit_is_raised() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    at_most = 10000 if hard == resource.RLIM_INFINITY else min(hard, 10000)
    assert limited(256, at_most) == [f"{at_most} {at_most}"]


def test_a_soft_limit_that_is_enough_stays() -> None:
    assert limited(4096, 4096) == ["4096 4096"]


def test_a_hard_limit_that_is_too_low_is_refused_with_what_is_missing() -> None:
    message, after = limited(256, 512)
    assert message.startswith("ConfigurationError Configuration: this process may need 1599 open files")
    assert "its hard limit is 512: 1087 are missing" in message
    assert "LimitNOFILE=2048" in message
    assert "ulimit -n 2048" in message
    assert after == "256 512"


def test_nothing_is_missing_without_a_limit() -> None:
    assert limits.missing_files({"api": 10**6}, resource.RLIM_INFINITY) == ""
