"""Promise 8: the quota used is what is there."""

from sqlalchemy import func, or_, select

from controller.db.models import Instance, Project
from controller.domain.states import UNCOUNTED
from controller.operations.audit.violation import Remedy, Repair, Violation
from controller.operations.cloud import Transaction


def quotas(tx: Transaction) -> list[Violation]:
    """Each project's counters are the sums of its instances that count."""
    rows = (
        select(
            Instance.project_id,
            func.count().label("instances"),
            func.sum(Instance.vcpus).label("vcpus"),
            func.sum(Instance.memory_mib).label("memory_mib"),
        )
        .where(Instance.state.not_in(list(UNCOUNTED)))
        .group_by(Instance.project_id)
        .subquery()
    )
    used = {
        "instances": (Project.used_instances, func.coalesce(rows.c.instances, 0)),
        "vCPU": (Project.used_vcpus, func.coalesce(rows.c.vcpus, 0)),
        "MiB of memory": (Project.used_memory_mib, func.coalesce(rows.c.memory_mib, 0)),
    }
    wrong = tx.session.execute(
        select(Project.id, *(column for pair in used.values() for column in pair))
        .outerjoin(rows, rows.c.project_id == Project.id)
        .where(or_(*(counter != counted for counter, counted in used.values())))
    )
    advice = "`pileus audit --repair` sets the counters to what is there"
    return [
        Violation(
            8,
            f"{counter} {what} are counted as used, {counted} are there",
            f"project {project}",
            advice,
            Remedy(Repair.RECOUNT_PROJECT, subject=project),
        )
        for project, *numbers in wrong
        for what, counter, counted in zip(used, map(int, numbers[::2]), map(int, numbers[1::2]), strict=True)
        if counter != counted
    ]


CHECKS = (quotas,)
