"""What doors show is read in a number of statements that does not grow with what is found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from controller.operations.accounts import key_pairs, tags
from controller.operations.cloud import Transaction
from controller.operations.hosts import views as hosts
from controller.operations.images import views as images
from controller.operations.instances import history, instance_types, metadata, placement_groups, views
from controller.operations.networks import views as networks
from tests.labs.cloud import TestCloud


@contextmanager
def counted(site: TestCloud) -> Iterator[list[str]]:
    """The SELECTs that are sent meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(site.cloud.database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(site.cloud.database.engine, "before_cursor_execute", note)


# What is read, and in how many statements at most.
READ: dict[str, tuple[Callable[[Transaction, str], Any], int]] = {
    "instances": (lambda tx, project: views.list_instances(tx, project), 3),
    "instances of all projects": (lambda tx, _: views.list_instances(tx), 3),
    "a page of instances": (lambda tx, project: views.list_instances(tx, project, limit=5), 3),
    "instances by state": (lambda tx, _: views.count_by_state(tx), 1),
    "images": (lambda tx, project: images.list_images(tx, project), 2),
    "networks": (lambda tx, project: networks.list_usable_networks(tx, project), 2),
    "ranges": (lambda tx, project: networks.list_usable_ranges(tx, project), 1),
    "key pairs": (lambda tx, project: key_pairs.list_key_pairs(tx, project), 2),
    "placement groups": (lambda tx, project: placement_groups.list_placement_groups(tx, project), 2),
    "tags": (lambda tx, project: tags.list_tags(tx, project), 1),
    "instance types": (lambda tx, _: instance_types.list_types(tx), 1),
    "zones": (lambda tx, _: hosts.zones(tx), 1),
    "a guest's metadata": (lambda tx, _: metadata.find_guest(tx, "10.128.0.2", "10.128.0.1"), 1),
}


def populate(site: TestCloud, number: int) -> None:
    """A few more of everything."""
    site.heartbeat(vcpus=64, memory_mib=2**20)
    project = site.project_id
    ids = site.launch(3, tags=(("Name", "web"),))
    site.cloud.write(lambda tx: tags.create_tags(tx, project, [site.image_id, *ids], {f"k{number}": "v"}))
    site.cloud.write(lambda tx: placement_groups.create_placement_group(tx, project, f"g{number}", "spread"))
    key_pairs.create_key_pair(site.cloud, project, f"k{number}", "ed25519", {"a": "b"})


def statements(site: TestCloud) -> dict[str, int]:
    found = {}
    for name, (read, _) in READ.items():
        with counted(site) as seen:
            site.cloud.read(lambda tx, read=read: read(tx, site.project_id))  # type: ignore[misc]
        found[name] = len(seen)
    return found


def test_statements_do_not_grow(site: TestCloud) -> None:
    populate(site, 0)
    few = statements(site)
    for number in range(1, 6):
        populate(site, number)
    assert statements(site) == few
    assert {name: n for name, n in few.items() if n > READ[name][1]} == {}


def test_a_history_is_read_in_a_fixed_number_of_statements(site: TestCloud) -> None:
    (instance_id,) = site.launch(1)
    with counted(site) as seen:
        found = site.cloud.read(lambda tx: history.explain(tx, instance_id))
    assert [e.event for e in found.events] == ["REQUESTED"]
    assert len(seen) == 4
