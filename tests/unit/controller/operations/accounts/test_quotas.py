"""Quotas: counters that change with what they count, and never go beyond their limit."""

import pytest

from controller.db.models import InstanceType, Project
from controller.domain.errors import ClaimConflict, QuotaExceeded
from controller.domain.states import Event
from controller.operations.accounts import projects, quotas
from controller.operations.cloud import Transaction
from controller.operations.instances.transitions import lock_instances, transition
from tests.labs.cloud import TestCloud


def rows(tx: Transaction, site: TestCloud) -> tuple[Project, InstanceType]:
    return tx.session.get_one(Project, site.project_id), tx.session.get_one(InstanceType, "m1.large")


def used(site: TestCloud) -> tuple[int, int, int]:
    project = site.cloud.read(lambda tx: rows(tx, site)[0])
    return project.used_instances, project.used_vcpus, project.used_memory_mib


@pytest.mark.parametrize(
    ("limits", "resource"),
    [({"instances": 2}, "instances"), ({"vcpus": 5}, "vcpus"), ({"memory_mib": 3 * 7680 - 1}, "memory_mib")],
)
def test_the_scarcest_resource_decides(site: TestCloud, limits: dict[str, int], resource: str) -> None:
    site.cloud.write(lambda tx: projects.set_quota(tx, site.project_id, **limits))
    assert site.cloud.read(lambda tx: quotas.allowed(*rows(tx, site), 1, 9)) == 2
    with pytest.raises(QuotaExceeded, match=f" for {resource} is "):
        site.cloud.read(lambda tx: quotas.allowed(*rows(tx, site), 3, 9))


def test_nothing_is_taken_beyond_the_limit(site: TestCloud) -> None:
    site.cloud.write(lambda tx: projects.set_quota(tx, site.project_id, vcpus=4))
    site.cloud.write(lambda tx: quotas.take(tx, *rows(tx, site), 2))
    assert used(site) == (2, 4, 2 * 7680)
    with pytest.raises(ClaimConflict):
        site.cloud.write(lambda tx: quotas.take(tx, *rows(tx, site), 1))
    assert used(site) == (2, 4, 2 * 7680)


def test_a_deleted_instance_gives_its_part_back(site: TestCloud) -> None:
    ids = site.launch(2, instance_type="m1.large")
    assert used(site) == (2, 4, 2 * 7680)
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, ids[:1]), Event.DELETE))
    assert used(site) == (1, 2, 7680)
