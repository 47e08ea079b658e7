"""A general cloud image with cloud-init, imported as it is: the cloud tells it, unasked, where its metadata is."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.servers.guarded import find_program
from tests.labs.system import general_image
from tests.labs.system.running_cloud import RunningCloud, Shell, pings, run

# A boot takes a minute without KVM, the image another one when it is not in the cache; both formats boot at once.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

TYPE = "t2.nano"
FORMATS = ("qcow2", "raw")
USER_DATA = """#!/bin/bash
echo "ran as $(id -un) on $(hostname --fqdn)" >/var/tmp/user-data-ran
"""


class Guests:
    """A guest of the image in each format, told apart by format: ids and addresses."""

    def __init__(self, cloud: RunningCloud, folder: Path) -> None:
        key = folder / "key.pem"
        key.touch(0o600)
        key.write_text(cloud.ec2.create_key_pair(KeyName="mine")["KeyMaterial"])
        self.cloud = cloud
        self.shell = Shell(key, user=general_image.LOGIN)
        self.ids = {name: self._start(file, name) for name, file in _files(folder).items()}
        cloud.wait_state("running", *self.ids.values())
        self.addresses = {name: str(cloud.machine(i)["PrivateIpAddress"]) for name, i in self.ids.items()}

    def _start(self, file: Path, name: str) -> str:
        image = self.cloud.pileus_json("image", "import", str(file), "--name", f"general-{name}")
        assert image["format"] == name
        made = self.cloud.ec2.run_instances(
            ImageId=image["id"], InstanceType=TYPE, KeyName="mine", MinCount=1, MaxCount=1, UserData=USER_DATA
        )
        return str(made["Instances"][0]["InstanceId"])

    def console(self, name: str) -> str:
        return str(self.cloud.ec2.get_console_output(InstanceId=self.ids[name]).get("Output", ""))[-4000:]


def _files(folder: Path) -> dict[str, Path]:
    image, raw = general_image.cached_image(), folder / "general.raw"
    run([find_program("qemu-img", package="qemu-utils"), "convert", "-f", "qcow2", "-O", "raw", str(image), str(raw)])
    return dict(zip(FORMATS, (image, raw), strict=True))


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    assert os.geteuid() == 0, "real virtual machines need root"
    folder = tmp_path_factory.mktemp("cloud-image")
    state, programs = folder / "state", Path(sys.executable).parent
    try:
        yield Guests(RunningCloud.set_up(state, programs), folder)
    finally:
        RunningCloud(state, programs).sweep_away()


@pytest.mark.parametrize("name", FORMATS)
def test_cloud_init_finds_its_metadata(guests: Guests, name: str) -> None:
    address, instance_id = guests.addresses[name], guests.ids[name]
    guests.shell.wait(address, deadline_s=900, what=lambda: guests.console(name))
    status = guests.shell.run(address, "cloud-init status --wait --long", timeout_s=600)
    assert "status: done" in status, status
    result = json.loads(guests.shell.run(address, "cat /run/cloud-init/result.json"))["v1"]
    assert result["errors"] == []
    assert result["datasource"].startswith("DataSourceNoCloudNet [seed=dmi,"), result
    assert guests.shell.run(address, "cloud-init query instance_id").strip() == instance_id

    short = f"ip-{address.replace('.', '-')}"
    assert guests.shell.run(address, "hostname").strip() == short
    full = guests.cloud.machine(instance_id)["PrivateDnsName"]
    assert guests.shell.run(address, "cat /var/tmp/user-data-ran").strip() == f"ran as root on {full}"
    grown = int(guests.shell.run(address, "df --output=size --block-size=1M / | tail -n 1"))
    assert grown > 3000, "the file system does not follow the disk of its type"


def test_it_goes_with_its_cloud(guests: Guests) -> None:
    guests.cloud.ec2.terminate_instances(InstanceIds=list(guests.ids.values()))
    guests.cloud.wait_state("terminated", *guests.ids.values())
    assert not any(map(pings, guests.addresses.values()))
    assert sorted(guests.cloud.traces()) == ["interfaces", "nft", "processes"]
    guests.cloud.pileus("down", "--destroy", timeout_s=200)
    assert guests.cloud.traces() == {}
