"""The first cloud as a newcomer has it: bin/quickstart, stock clients, real guests, and nothing left at the end.

The tests are the steps of one story and share its cloud: they run in this order, in one process (bin/test
gives every file to one process).
"""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from controller.domain.names import nft_table, tap_name
from tests.labs.servers.guarded import find_program, wait_until
from tests.labs.system.first_cloud import IP_FORWARD, LINK_LOCAL, METADATA, Scenario, command_line, link_local_service
from tests.labs.system.running_cloud import RunningCloud, answers_at, elapsed, pings, processes_with, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

COUNT = 5
USER_DATA = "#!/bin/sh\necho user data ran on $(hostname)\n"
# A request in the guest's words: busybox's wget knows no PUT.
ASK = """#!/bin/sh
printf 'PUT /latest/api/token HTTP/1.0\\r\\nHost: metadata\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n'
cat >/tmp/answer
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    assert os.geteuid() == 0, "real virtual machines need root"
    state = tmp_path_factory.mktemp("quickstart") / "state"
    try:
        yield Scenario(state)
    finally:
        RunningCloud(state, state / "venv/bin").sweep_away()


@pytest.fixture(scope="module")
def cloud(story: Scenario) -> RunningCloud:
    return story.cloud


def test_one_command_gives_a_machine_that_answers(story: Scenario, cloud: RunningCloud) -> None:
    assert pings(story.demo_address)
    login = next(line for line in story.said.splitlines() if line.strip().startswith("ssh "))
    assert "Linux" in run(["bash", "-c", f"{login.strip()} -o BatchMode=yes uname -a"])
    assert "up" in cloud.pileus("status")
    assert cloud.environment["PILEUS_URL"] == f"http://127.0.0.1:{story.port}"


def test_five_machines_with_a_created_key(story: Scenario, cloud: RunningCloud) -> None:
    story.key.touch(0o600)
    story.key.write_text(cloud.aws("create-key-pair", "--key-name", "mine")["KeyMaterial"])
    image = cloud.aws("describe-images", "--filters", "Name=name,Values=demo")["Images"][0]["ImageId"]
    arguments = ["--image-id", image, "--instance-type", "p1.tiny", "--key-name", "mine", "--count", str(COUNT)]
    made = cloud.aws("run-instances", *arguments, "--user-data", USER_DATA)
    story.ids = [i["InstanceId"] for i in made["Instances"]]
    assert len(set(story.ids)) == COUNT
    cloud.aws("wait", "instance-running", "--instance-ids", *story.ids)
    story.addresses = [cloud.machine(i)["PrivateIpAddress"] for i in story.ids]
    for address in story.addresses:
        story.shell.wait(address, what=lambda: cloud.scenarios(story.ids))
        assert pings(address)
        assert story.shell.run(address, "hostname").strip() == f"ip-{address.replace('.', '-')}"
    assert not story.demo.succeeds(story.addresses[0], "true"), "a key opens what it was not given for"


def test_names_resolve_between_guests(story: Scenario, cloud: RunningCloud) -> None:
    first, *others = story.addresses
    for instance_id, address in zip(story.ids[1:], others, strict=True):
        name = cloud.machine(instance_id)["PrivateDnsName"]
        for spelling in (name, name.partition(".")[0], instance_id):
            assert f"({address})" in story.shell.run(first, f"ping -c 1 -W 2 {spelling}"), spelling


def test_console_output(story: Scenario, cloud: RunningCloud) -> None:
    for instance_id, address in zip(story.ids, story.addresses, strict=True):

        def console(instance_id: str = instance_id) -> str:
            return str(cloud.ec2.get_console_output(InstanceId=instance_id).get("Output", ""))

        wait_until(lambda c=console: "USER-DATA ended" in c(), deadline_s=120, what=console)  # type: ignore[misc]
        assert f"GUEST-UP {address}" in console()
        assert f"user data ran on ip-{address.replace('.', '-')}" in console()
    assert "GUEST-UP" in cloud.aws("get-console-output", "--instance-id", story.ids[0])["Output"]


def test_metadata_of_both_versions(story: Scenario) -> None:
    instance_id, address = story.ids[0], story.addresses[0]

    def get(path: str, header: str = "") -> str:
        option = f"--header '{header}'" if header else ""
        return story.shell.run(address, f"wget -q -O - {option} http://{METADATA}/latest/{path}")

    assert get("meta-data/instance-id") == instance_id
    assert get("meta-data/local-ipv4") == address
    assert get("user-data") == USER_DATA
    answer = story.shell.run(
        address,
        f"cat >/tmp/ask; chmod 700 /tmp/ask; timeout 10 nc {METADATA} 80 -e /tmp/ask; cat /tmp/answer",
        stdin=ASK,
    )
    status, token = answer.splitlines()[0], answer.splitlines()[-1]
    assert " 200 " in status, answer
    assert get("meta-data/instance-id", f"X-aws-ec2-metadata-token: {token}") == instance_id
    wrong = f"wget -q -O - --header 'X-aws-ec2-metadata-token: {token}x' http://{METADATA}/latest/user-data"
    assert not story.shell.succeeds(address, wrong)


def test_what_a_guest_may_not_reach(story: Scenario, cloud: RunningCloud) -> None:
    guest = story.addresses[0]
    gateway = cloud.pileus_json("network", "list")[0]["cidr"].partition("/")[0].rsplit(".", 1)[0] + ".1"

    def reaches(address: str, port: int) -> bool:
        return story.shell.succeeds(guest, f"nc -w 2 {address} {port} -e /bin/true")

    with link_local_service() as port:
        assert answers_at(LINK_LOCAL, port)
        assert answers_at(gateway, port)
        assert reaches(METADATA, 80)
        assert not reaches(METADATA, port)
        assert not reaches(LINK_LOCAL, port)
        assert not reaches(LINK_LOCAL, 80)
        assert not reaches(gateway, port)
        assert not story.shell.succeeds(guest, f"ping -c 1 -W 1 {LINK_LOCAL}")
    assert not reaches(gateway, story.port), "a guest reaches the API of a machine that offers it to itself only"


def test_dhcp_serves_as_many_as_the_network_has(cloud: RunningCloud) -> None:
    network = cloud.pileus_json("network", "list")[0]
    (pid,) = processes_with(f"--conf-file={cloud.state}/network/{network['id']}/dnsmasq.conf")
    option, _, file = command_line(pid).rstrip("\0").rpartition("\0")[2].partition("=")
    assert option == "--conf-file"
    found = re.search(r"^dhcp-lease-max=(\d+)$", Path(file).read_text(), re.MULTILINE)
    size = 2 ** (32 - int(network["cidr"].partition("/")[2]))
    # All but the network's own address, the gateway's and the broadcast's.
    assert found and int(found[1]) == size - 3


def test_stop_and_start_keep_address_and_disk(story: Scenario, cloud: RunningCloud) -> None:
    instance_id, address = story.ids[0], story.addresses[0]
    boot = story.boots()[0]
    story.shell.run(address, "echo kept >/root/kept; sync")
    cloud.aws("stop-instances", "--instance-ids", instance_id)
    cloud.wait_state("stopped", instance_id)
    assert story.qemu(instance_id) == []
    assert not pings(address)
    cloud.aws("start-instances", "--instance-ids", instance_id)
    cloud.wait_state("running", instance_id)
    assert cloud.machine(instance_id)["PrivateIpAddress"] == address
    story.shell.wait(address, what=lambda: cloud.scenarios([instance_id]))
    assert story.shell.run(address, "cat /root/kept") == "kept\n"
    assert story.boots()[0] != boot


def test_reboot(story: Scenario, cloud: RunningCloud) -> None:
    instance_id, address = story.ids[1], story.addresses[1]
    boot = story.boots()[1]
    cloud.aws("reboot-instances", "--instance-ids", instance_id)

    def rebooted() -> bool:
        command = "cat /proc/sys/kernel/random/boot_id"
        return story.shell.succeeds(address, "true") and story.shell.run(address, command).strip() != boot

    wait_until(rebooted, deadline_s=240, what=lambda: cloud.scenarios([instance_id]))
    cloud.wait_state("running", instance_id)


def test_down_and_up_touch_no_guest(story: Scenario, cloud: RunningCloud) -> None:
    pids, boots = story.pids(), story.boots()
    cloud.pileus("down")
    cloud.pileus_fails("status")
    assert story.pids() == pids
    assert all(map(pings, story.addresses))
    cloud.pileus("up", "--hosts", "1")
    _all_run(story, cloud, pids, boots)


def test_a_killed_control_plane_touches_no_guest(story: Scenario, cloud: RunningCloud) -> None:
    pids, boots = story.pids(), story.boots()
    daemon = int((cloud.state / "run/pileus.pid").read_text().split()[0])
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{daemon}").exists(), deadline_s=10, what=lambda: "it is still there")
    assert all(map(pings, story.addresses))
    cloud.pileus("up", "--hosts", "1")
    _all_run(story, cloud, pids, boots)


def _all_run(story: Scenario, cloud: RunningCloud, pids: dict[str, list[int]], boots: list[str]) -> None:
    cloud.wait_state("running", story.demo_id, *story.ids)
    assert {i["state"] for i in cloud.pileus_json("instance", "list")} == {"ACTIVE"}
    assert story.pids() == pids
    assert all(len(p) == 1 for p in pids.values())
    assert story.boots() == boots


def test_an_image_with_a_backing_file_is_refused(cloud: RunningCloud, tmp_path: Path) -> None:
    program = find_program("qemu-img", package="qemu-utils")
    base, image = tmp_path / "base.raw", tmp_path / "image.qcow2"
    run([program, "create", "-q", "-f", "raw", str(base), "1M"])
    run([program, "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(image)])
    before = cloud.pileus_json("image", "list"), sorted((cloud.state / "images").iterdir())
    assert "backing file" in cloud.pileus_fails("image", "import", str(image), "--name", "hostile")
    assert (cloud.pileus_json("image", "list"), sorted((cloud.state / "images").iterdir())) == before


def test_an_overlapping_network_is_refused(cloud: RunningCloud) -> None:
    before = cloud.pileus_json("network", "list"), cloud.bridges()
    cidr = before[0][0]["cidr"].partition("/")[0] + "/24"
    assert "overlaps" in cloud.pileus_fails("network", "create", "second", "--cidr", cidr)
    assert (cloud.pileus_json("network", "list"), cloud.bridges()) == before


def test_more_than_fits_is_refused(story: Scenario, cloud: RunningCloud) -> None:
    def seen() -> Any:
        used = ("id", "vcpus_used", "memory_used_mib", "disk_used_gib")
        hosts = [{name: host[name] for name in used} for host in cloud.pileus_json("host", "list")]
        return hosts, len(cloud.pileus_json("instance", "list")), sorted((cloud.state / "instances").iterdir())

    before = seen()
    image = cloud.machine(story.ids[0])["ImageId"]
    with pytest.raises(ClientError) as refused:
        cloud.ec2.run_instances(ImageId=image, InstanceType="m5.2xlarge", MinCount=100, MaxCount=100)
    assert refused.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert "1 of 1 hosts" in str(refused.value)
    assert seen() == before


def test_terminated_machines_leave_nothing(story: Scenario, cloud: RunningCloud) -> None:
    network = cloud.state / "network" / cloud.pileus_json("network", "list")[0]["id"]
    addresses = [f",{address}," for address in story.addresses]
    assert all(a in (network / "hosts").read_text() for a in addresses)
    cloud.aws("terminate-instances", "--instance-ids", *story.ids)
    cloud.aws("wait", "instance-terminated", "--instance-ids", *story.ids)
    for instance_id in story.ids:
        assert story.qemu(instance_id) == []
        assert not (cloud.state / "instances" / instance_id).exists()
        assert not Path("/sys/class/net", tap_name(cloud.cloud_id, instance_id)).exists()
        assert list((cloud.state / "libvirt/etc/qemu").rglob(f"*{instance_id}*")) == []

    def forgotten() -> bool:
        return not any(a in (network / "hosts").read_text() for a in addresses)

    wait_until(forgotten, deadline_s=60, what=lambda: (network / "hosts").read_text())
    assert pings(story.demo_address)
    (host,) = cloud.pileus_json("host", "list")
    assert host["vcpus_used"] == 1


def test_quickstart_again_takes_what_is_there(story: Scenario, cloud: RunningCloud) -> None:
    pids = story.qemu(story.demo_id)
    took = elapsed(lambda: _again(story))
    assert took < story.took_s / 2, f"{took} s, of {story.took_s} s at first"
    assert story.qemu(story.demo_id) == pids


def _again(story: Scenario) -> None:
    said = RunningCloud.quickstart(story.cloud.state)
    assert f"{story.demo_id}, address {story.demo_address}\n" in said


def test_a_second_cloud_cannot_have_the_same_port(story: Scenario, cloud: RunningCloud, tmp_path: Path) -> None:
    other = RunningCloud(tmp_path / "other", cloud.programs)
    try:
        other.pileus("init", "--port", str(story.port))
        said = other.pileus_fails("up")
        assert f"127.0.0.1:{story.port} cannot be listened on" in said
    finally:
        other.sweep_away()
    assert other.traces() == {}
    assert pings(story.demo_address)


def test_destroy_leaves_nothing(story: Scenario, cloud: RunningCloud) -> None:
    assert sorted(cloud.traces()) == ["interfaces", "nft", "processes"]
    cloud.pileus("down", "--destroy", timeout_s=200)
    assert cloud.traces() == {}
    assert [p.name for p in cloud.state.iterdir()] == ["venv"]
    assert nft_table(cloud.cloud_id) not in run(["nft", "list", "ruleset"])
    if "pileus_" not in run(["nft", "list", "tables"]):  # else another cloud of this machine needs it
        assert IP_FORWARD.read_text() == story.forwarded
    assert "nothing to do" in cloud.pileus("down", "--destroy")
