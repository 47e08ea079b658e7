"""Projects: accounts with quotas."""

import re
from collections.abc import Sequence

from sqlalchemy import or_, select

from controller.db.models import Project
from controller.domain.checks import check_name, check_number
from controller.domain.errors import AlreadyExists, InvalidParameter, ProjectNotFound
from controller.operations.cloud import Transaction

_ACCOUNT = re.compile(r"[0-9]{12}", re.ASCII)


def create_project(tx: Transaction, name: str) -> Project:
    """Create a project with the quotas of the configuration; its id is a 12-digit account number.

    Raises:
        AlreadyExists, InvalidParameter
    """
    check_name("name", name)
    if _ACCOUNT.fullmatch(name):
        raise InvalidParameter(parameter="name", value=name, reason="12 digits are an account number")
    if tx.session.scalar(select(Project.id).where(Project.name == name)):
        raise AlreadyExists(kind="project", id=name)
    quota = tx.settings.quota
    project = Project(
        id=tx.ids.account(),
        name=name,
        enabled=True,
        quota_instances=quota.instances,
        quota_vcpus=quota.vcpus,
        quota_memory_mib=quota.memory_mib,
        used_instances=0,
        used_vcpus=0,
        used_memory_mib=0,
        created_at=tx.now,
    )
    tx.session.add(project)
    tx.session.flush()
    return project


def list_projects(tx: Transaction) -> Sequence[Project]:
    """All projects, by name."""
    return tx.session.scalars(select(Project).order_by(Project.name)).all()


def get_project(tx: Transaction, id_or_name: str) -> Project:
    """A project by its account number or its name. Raises ProjectNotFound."""
    found = tx.session.scalar(select(Project).where(or_(Project.id == id_or_name, Project.name == id_or_name)))
    if found is None:
        raise ProjectNotFound(id=id_or_name)
    return found


def set_quota(
    tx: Transaction,
    id_or_name: str,
    *,
    instances: int | None = None,
    vcpus: int | None = None,
    memory_mib: int | None = None,
) -> Project:
    """Change quotas; what is already used beyond a lower one stays.

    Raises:
        ProjectNotFound, InvalidParameter
    """
    project = get_project(tx, id_or_name)
    for name, value in (("instances", instances), ("vcpus", vcpus), ("memory_mib", memory_mib)):
        if value is None:
            continue
        check_number(name, value, 0)
        setattr(project, f"quota_{name}", value)
    return project
