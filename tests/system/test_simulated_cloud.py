"""bin/quickstart --simulated: twenty hosts and five hundred instances without root."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import CHECKOUT, RunningCloud, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

HOSTS, COUNT = 20, 500
SOURCES = ["api", "bin", "compute_agent", "controller", "etc", "migrations", "network", "requirements", "scheduler"]


@pytest.fixture(scope="module")
def cloud() -> Iterator[RunningCloud]:
    # Not pytest's folder: another user cannot reach that.
    folder = Path(tempfile.mkdtemp(prefix="pileus-simulated-"))
    state, prefix, checkout = folder / "state", [], CHECKOUT
    if os.geteuid() == 0:
        # pip installs a checkout in place, so it must be that user's own.
        checkout = folder / "checkout"
        _copy_sources(checkout)
        run(["chown", "-R", "nobody:nogroup", str(folder)])
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
        prefix += ["env", f"HOME={folder}", "XDG_CACHE_HOME="]
    made = RunningCloud(state, state / "venv/bin", prefix=prefix)
    try:
        port = str(free_ports(1)[0])
        options = ["--simulated", str(HOSTS), "--port", port]
        assert "The cloud is up" in RunningCloud.quickstart(state, *options, prefix=prefix, checkout=checkout)
        yield made
    finally:
        made.sweep_away()
        shutil.rmtree(folder)


def _copy_sources(checkout: Path) -> None:
    checkout.mkdir()
    for name in SOURCES:
        shutil.copytree(CHECKOUT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, checkout)


def _described(cloud: RunningCloud, **filters: Any) -> list[dict[str, Any]]:
    pages = cloud.ec2.get_paginator("describe_instances").paginate(**filters)
    return [i for page in pages for r in page["Reservations"] for i in r["Instances"]]


def test_five_hundred_by_one_request(cloud: RunningCloud) -> None:
    image = cloud.ec2.describe_images()["Images"][0]["ImageId"]
    made = cloud.ec2.run_instances(ImageId=image, InstanceType="p1.tiny", MinCount=COUNT, MaxCount=COUNT)
    ids = {i["InstanceId"] for i in made["Instances"]}
    assert len(ids) == COUNT
    # boto3's waiter reads all pages itself; its pause of 15 s between two looks is the client's own.
    of_this = [{"Name": "reservation-id", "Values": [made["ReservationId"]]}]
    cloud.ec2.get_waiter("instance_running").wait(Filters=of_this, WaiterConfig={"Delay": 1, "MaxAttempts": 240})
    found = _described(cloud, Filters=of_this, PaginationConfig={"PageSize": 70})
    assert {i["InstanceId"] for i in found} == ids
    assert len({i["PrivateIpAddress"] for i in found}) == COUNT
    pages = list(cloud.ec2.get_paginator("describe_instance_status").paginate(PaginationConfig={"PageSize": 100}))
    assert len(pages) == 6  # the demo machine is one more
    assert sum(len(p["InstanceStatuses"]) for p in pages) == COUNT + 1


def test_what_the_operator_sees(cloud: RunningCloud) -> None:
    status = cloud.pileus_json("status")
    assert status["healthy"]
    assert status["hosts"] == {"ready": HOSTS}
    assert status["instances"] == {"ACTIVE": COUNT + 1}
    hosts = cloud.pileus_json("host", "list")
    used = [h["vcpus_used"] for h in hosts]
    assert len(hosts) == HOSTS
    assert sum(used) == COUNT + 1
    assert max(used) - min(used) <= 1, f"not spread evenly: {used}"
    listed = cloud.pileus_json("instance", "list")
    assert len({i["id"] for i in listed}) == COUNT + 1
    assert {i["host_id"] for i in listed} == {h["id"] for h in hosts}


def test_a_host_with_instances_is_not_removed(cloud: RunningCloud) -> None:
    said = cloud.pileus_fails("host", "remove", cloud.pileus_json("host", "list")[0]["id"])
    assert "instances" in said


def test_terminate_all(cloud: RunningCloud) -> None:
    ids = [i["InstanceId"] for i in _described(cloud)]
    ended = cloud.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert {i["InstanceId"] for i in ended} == set(ids)
    everyone = [{"Name": "instance-id", "Values": ids[:200]}]
    cloud.ec2.get_waiter("instance_terminated").wait(Filters=everyone, WaiterConfig={"Delay": 1, "MaxAttempts": 240})
    cloud.wait_state("terminated", *ids)
    assert {h["vcpus_used"] for h in cloud.pileus_json("host", "list")} == {0}
    assert cloud.pileus_json("status")["instances"] == {}


def test_destroy_leaves_nothing(cloud: RunningCloud) -> None:
    assert sorted(cloud.traces()) == ["processes"]
    cloud.pileus("down", "--destroy")
    assert cloud.traces() == {}
    assert [p.name for p in cloud.state.iterdir()] == ["venv"]
