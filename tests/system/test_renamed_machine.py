"""A machine gets another name: its guests are still its own, and none of them goes."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.configuration_file import changed_text
from tests.faults.table import row
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import RunningCloud

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

_PROGRAMS = Path(sys.executable).parent


def _named(state: Path, name: str) -> RunningCloud:
    """The same cloud, its processes in a UTS namespace in which the machine has this name."""
    prefix = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    return RunningCloud(state, _PROGRAMS, prefix=prefix)


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pileus-renamed-"))
    try:
        yield folder / "state"
    finally:
        _named(folder / "state", "any").sweep_away()
        shutil.rmtree(folder, ignore_errors=True)


def _last_seen(cloud: RunningCloud) -> str:
    return str(cloud.pileus_json("host", "show", "first-0001")["last_seen_at"])


def _next_heartbeat(cloud: RunningCloud, before: str) -> str:
    wait_until(lambda: _last_seen(cloud) > before, deadline_s=60, what=cloud.log_tail)
    return _last_seen(cloud)


@row(
    fault="a machine is renamed",
    strikes="its cloud is down; then it is up under the other name, three guests run there",
    seen="the host keeps its name in the cloud, which is stored with it; all guests stay",
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "made before names were stored"])
def test_a_renamed_machine_keeps_its_guests(state: Path, stored: bool, tmp_path: Path) -> None:
    cloud = _named(state, "first")
    cloud.pileus("init", "--simulated", "1", "--port", str(free_ports(1)[0]))
    configuration = state / "pileus.conf"
    assert re.search(r"^host = first$", configuration.read_text(), re.MULTILINE)
    configuration.write_text(changed_text(configuration.read_text(), {("compute", "heartbeat_s"): 1}))
    cloud.pileus("up", "--hosts", "1", timeout_s=200)
    raw = tmp_path / "tiny.raw"
    raw.write_bytes(b"tiny" * 128)
    cloud.pileus("image", "import", "--name", "tiny", "--public", str(raw))
    image = cloud.ec2.describe_images()["Images"][0]["ImageId"]
    made = cloud.ec2.run_instances(ImageId=image, InstanceType="p1.tiny", MinCount=3, MaxCount=3)
    ids = sorted(i["InstanceId"] for i in made["Instances"])
    cloud.wait_state("running", *ids)
    cloud.pileus("down")
    if not stored:
        configuration.write_text(re.sub(r"(?m)^host = .*\n", "", configuration.read_text()))
    renamed = _named(state, "second")
    renamed.pileus("up", "--hosts", "1", timeout_s=200)
    before = _last_seen(renamed)
    for _ in range(3):  # successive heartbeats
        before = _next_heartbeat(renamed, before)
    assert [h["id"] for h in renamed.pileus_json("host", "list")] == ["first-0001"]
    renamed.wait_state("running", *ids)
    shown = renamed.pileus_json("host", "show", "first-0001")
    assert (shown["strays"], sorted(shown["instances"])) == ([], [f"{i} ACTIVE" for i in ids])
    renamed.pileus("audit")
