"""The audit of a cloud with real guests, all in one process: strays are told and removed, what runs runs on.

The tests share the cloud, in this order; each leaves it clean.
"""

import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compute_agent.libvirt_driver.driver import LibvirtDriver
from controller.conf import Settings, load_settings
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec, ImageSpec, NicSpec
from controller.domain.names import bridge_name, nft_table, tap_name
from network.dnsmasq.files import served_lines
from tests.labs.servers.guarded import wait_until
from tests.labs.system.processes import BOOT_SECTOR, INTERFACES, qemu_pids
from tests.labs.system.running_cloud import RunningCloud, processes_with, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

STRANGER = "i-0000000000000dead"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    assert os.geteuid() == 0, "real guests need root"
    folder = tmp_path_factory.mktemp("audit")
    made = RunningCloud(folder / "state", Path(sys.executable).parent)
    try:
        made = RunningCloud.set_up(folder / "state", Path(sys.executable).parent)
        image = folder / "halt.raw"
        image.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(1024 * 1024 - 512))
        made.pileus("image", "import", str(image), "--name", "halt")
        yield made
    finally:
        made.sweep_away()


@pytest.fixture(scope="module")
def guest(cloud: RunningCloud) -> str:
    image = cloud.ec2.describe_images()["Images"][0]["ImageId"]
    made = cloud.ec2.run_instances(ImageId=image, InstanceType="p1.tiny", MinCount=1, MaxCount=1)
    instance_id = str(made["Instances"][0]["InstanceId"])
    cloud.wait_state("running", instance_id)
    return instance_id


def settings_of(cloud: RunningCloud) -> Settings:
    return load_settings(cloud.state / "pileus.conf")


def spec_of(instance_id: str, cloud: RunningCloud) -> GuestSpec:
    """A guest that was never requested, on the network of those that were."""
    (path,) = (cloud.state / "images").glob("*.raw")
    content = path.read_bytes()
    vlan = cloud.pileus_json("network", "list")[0]["vlan"]
    image = ImageSpec("ami-1", hashlib.sha256(content).hexdigest(), len(content), "raw", path.as_uri(), 1024 * 1024)
    nic = NicSpec("net-1", vlan, "02:16:3e:00:00:01", "10.99.0.2", 24)
    return GuestSpec(instance_id, 1, Desired.RUNNING, "p", "x", 1, 32, 1, image=image, nics=(nic,))


def audit(cloud: RunningCloud, *options: str) -> Any:
    """The operator's command, whatever its exit status says."""
    arguments = ["--output", "json", "audit", "--settle", "1", *options]
    try:
        return json.loads(cloud.pileus(*arguments))
    except AssertionError as failed:
        text = str(failed)
        assert "{" in text, text
        return json.loads(text[text.index("{") : text.rindex("}") + 1])


def subjects(violations: list[dict[str, Any]]) -> set[str]:
    return {b["subject"] for b in violations}


def test_a_cloud_with_a_guest_is_clean(cloud: RunningCloud, guest: str) -> None:
    assert audit(cloud) == {"clean": True, "breaches": [], "mended": [], "notes": []}


def test_a_stray_domain_is_removed_and_no_other(cloud: RunningCloud, guest: str) -> None:
    settings = settings_of(cloud)
    driver = LibvirtDriver(settings)
    try:
        driver.spawn(spec_of(STRANGER, cloud))
    finally:
        driver.close()
    mine = qemu_pids(settings, spec_of(guest, cloud))
    assert len(mine) == len(qemu_pids(settings, spec_of(STRANGER, cloud))) == 1
    (violation,) = audit(cloud)["breaches"]
    assert violation["subject"] == STRANGER
    assert "has a domain (running) of it, no row owns it" in violation["what"]
    told = audit(cloud, "--repair")
    assert (subjects(told["mended"]), told["breaches"]) == ({STRANGER}, [])
    assert qemu_pids(settings, spec_of(STRANGER, cloud)) == set()
    assert qemu_pids(settings, spec_of(guest, cloud)) == mine
    assert not (cloud.state / "instances" / STRANGER).exists()
    assert not (INTERFACES / tap_name(cloud.cloud_id, STRANGER)).exists()


def test_a_stray_disk_and_a_stray_tap_are_removed(cloud: RunningCloud, guest: str) -> None:
    folder = cloud.state / "instances" / STRANGER
    folder.mkdir()
    (folder / "disk.qcow2").write_bytes(b"what was left")
    tap = tap_name(cloud.cloud_id, "i-feedfeed000000000")
    run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
    run(["ip", "link", "set", "dev", tap, "up"])
    assert subjects(audit(cloud)["breaches"]) == {STRANGER, tap}
    told = audit(cloud, "--repair")
    assert (subjects(told["mended"]), told["breaches"]) == ({STRANGER, tap}, [])
    assert not folder.exists()
    assert not (INTERFACES / tap).exists()
    assert (INTERFACES / tap_name(cloud.cloud_id, guest)).exists()


def test_what_was_changed_on_the_network_node_is_mended(cloud: RunningCloud, guest: str) -> None:
    """The service's own sweep may be quicker; afterwards all is as it was in any case."""
    (network,) = cloud.pileus_json("network", "list")
    folder = cloud.state / "network" / network["id"]
    served = served_lines(folder)
    assert len(served) == 1
    argument = f"--conf-file={folder}/dnsmasq.conf"
    (pid,) = processes_with(argument)
    table = nft_table(cloud.cloud_id)
    before = run(["nft", "-s", "list", "table", "inet", table])
    run(["nft", "flush", "chain", "inet", table, "from_guest"])
    for file in (folder / "hosts", *(folder / "hosts.d").iterdir()):
        file.write_text("")
    os.kill(pid, 9)
    told = audit(cloud, "--repair")
    assert told["breaches"] == []
    assert served_lines(folder) == served
    wait_until(lambda: len(processes_with(argument)) == 1, deadline_s=10, what=lambda: "no dnsmasq")
    assert run(["nft", "-s", "list", "table", "inet", table]) == before
    assert (INTERFACES / bridge_name(cloud.cloud_id, network["vlan"])).exists()


def test_a_lost_domain_leaves_its_disk_and_a_row_that_says_so(cloud: RunningCloud, guest: str) -> None:
    settings = settings_of(cloud)
    driver = LibvirtDriver(replace(settings))
    try:
        with driver._connections.use("Undefining") as connection:
            domain = driver._find(connection, guest)
            assert domain is not None
            domain.destroy()
            domain.undefine()
    finally:
        driver.close()
    assert audit(cloud, "--repair")["breaches"] == []
    cloud.wait_state("stopped", guest)
    assert audit(cloud)["clean"]
    cloud.ec2.start_instances(InstanceIds=[guest])
    cloud.wait_state("running", guest)
    assert audit(cloud)["clean"]


def test_an_audit_needs_the_operators_token(cloud: RunningCloud) -> None:
    url = f"http://127.0.0.1:{settings_of(cloud).api.listen_port}/v1/audit"
    request = urllib.request.Request(url, b"{}", {"Authorization": f"Bearer {'00' * 32}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
    assert refused.value.code == 403


def test_a_cloud_that_is_down_has_its_rows_audited(cloud: RunningCloud, guest: str) -> None:
    cloud.pileus("down")
    told = audit(cloud)
    (violation,) = told["breaches"]
    assert "1 host, DHCP and firewall were not looked at" in violation["what"]
