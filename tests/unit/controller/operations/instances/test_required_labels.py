"""Labels that an instance type or an image requires of a host: said by the operator, held by the scheduler."""

from pathlib import Path
from typing import Any

import pytest

from controller.domain.errors import InvalidParameter
from controller.domain.states import State
from controller.operations.images import images
from controller.operations.instances import instance_types
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


def place(site: TestCloud, **request: Any) -> tuple[State, str | None]:
    """What becomes of one instance: its state and its host."""
    (instance_id,) = site.launch(**request)
    reservation = site.instance(instance_id).reservation_id
    site.cloud.write(lambda tx: schedule(tx, [reservation], HostCache()))
    row = site.instance(instance_id)
    return State(row.state), row.host_id


def test_only_hosts_that_have_every_label_are_chosen(site: TestCloud, tmp_path: Path) -> None:
    site.heartbeat("h1")
    site.heartbeat("h2", labels=("ssd",))
    site.cloud.write(lambda tx: instance_types.add_type(tx, "db.one", 1, 128, 1, ["ssd"]))
    assert {place(site, instance_type="db.one") for _ in range(3)} == {(State.BUILDING, "h2")}

    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    image = images.import_image(
        site.cloud, disk, name="cuda", project_id=site.project_id, required_labels=["gpu", "ssd", "gpu"]
    )
    assert image.required_labels == "gpu,ssd"
    assert place(site, image_id=image.id) == (State.ERROR, None)
    site.heartbeat("h3", labels=("ssd", "gpu"))
    assert place(site, image_id=image.id, instance_type="db.one") == (State.BUILDING, "h3")


@pytest.mark.parametrize("label", ["", "a,b", "a b", "x" * 64])
def test_a_label_that_no_host_can_have(site: TestCloud, tmp_path: Path, label: str) -> None:
    with pytest.raises(InvalidParameter):
        site.cloud.write(lambda tx: instance_types.add_type(tx, "x.one", 1, 128, 1, [label]))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    with pytest.raises(InvalidParameter):
        images.import_image(site.cloud, disk, name="x", project_id=site.project_id, required_labels=[label])
    assert not site.cloud.settings.image_store.exists()
