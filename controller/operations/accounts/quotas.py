"""Quotas of projects: counters in a project's row, changed only in the transaction that makes what they count."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, update

from controller.db.models import InstanceType, Project
from controller.domain.errors import ClaimConflict, QuotaExceeded
from controller.operations.cloud import Transaction

_P = Project.__table__
# Part of every launch: built once, as building it costs more than running it.
_TAKE = (
    update(_P)  # type: ignore[arg-type]
    .where(
        _P.c.id == bindparam("project"),
        _P.c.used_instances + bindparam("n") <= _P.c.quota_instances,
        _P.c.used_vcpus + bindparam("n_vcpus") <= _P.c.quota_vcpus,
        _P.c.used_memory_mib + bindparam("n_memory_mib") <= _P.c.quota_memory_mib,
    )
    .values(
        used_instances=_P.c.used_instances + bindparam("n"),
        used_vcpus=_P.c.used_vcpus + bindparam("n_vcpus"),
        used_memory_mib=_P.c.used_memory_mib + bindparam("n_memory_mib"),
    )
)


@dataclass
class Usage:
    """What instances of one project use of its quota."""

    instances: int = 0
    vcpus: int = 0
    memory_mib: int = 0


def allowed(project: Project, instance_type: InstanceType, least: int, most: int) -> int:
    """For how many instances of a type, up to ``most``, the quota has room, as the project was read; ``take`` decides
    the race.

    Raises:
        QuotaExceeded: for less than ``least``; it names the resource that there is least of.
    """
    left = {
        "instances": project.quota_instances - project.used_instances,
        "vcpus": (project.quota_vcpus - project.used_vcpus) // instance_type.vcpus,
        "memory_mib": (project.quota_memory_mib - project.used_memory_mib) // instance_type.memory_mib,
    }
    count = min(most, *left.values())
    if count < least:
        resource = min(left, key=lambda r: left[r])
        raise QuotaExceeded(
            project=project.name,
            resource=resource,
            limit=getattr(project, f"quota_{resource}"),
            used=getattr(project, f"used_{resource}"),
            asked=least * (1 if resource == "instances" else getattr(instance_type, resource)),
        )
    return count


def take(tx: Transaction, project: Project, instance_type: InstanceType, count: int) -> None:
    """Count so many more, by a conditional UPDATE. Raises ClaimConflict: another transaction took the quota first."""
    values = {"n": count, "n_vcpus": count * instance_type.vcpus, "n_memory_mib": count * instance_type.memory_mib}
    taken = tx.session.connection().execute(_TAKE, {"project": project.id, **values})
    if taken.rowcount != 1:
        raise ClaimConflict(kind="quota", id=project.id)


def give_back(tx: Transaction, released: Mapping[str, Usage]) -> None:
    """Count less, by project; projects are locked in the order of their ids. A negative usage is taken, unchecked."""
    for project_id in sorted(p for p in released if released[p].instances):
        usage = released[project_id]
        tx.session.execute(
            update(Project)
            .where(Project.id == project_id)
            .values(
                used_instances=Project.used_instances - usage.instances,
                used_vcpus=Project.used_vcpus - usage.vcpus,
                used_memory_mib=Project.used_memory_mib - usage.memory_mib,
            )
            .execution_options(synchronize_session=False)
        )
