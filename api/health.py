"""Whether this process can serve: its database answers and has the right tables, and its services do their work."""

from typing import Any

from controller.domain.errors import DatabaseUnavailable
from controller.domain.release import RELEASE
from controller.operations.cloud import Cloud
from controller.operations.database import schema


def health(cloud: Cloud) -> tuple[dict[str, Any], int]:
    """The answer's document and its HTTP status: 200, or 503 with the reason.

    An API without its bus goes on accepting requests: that is 200, `degraded`.
    """
    try:
        problem = cloud.read(schema.problem)
    except DatabaseUnavailable as error:
        problem = str(error)
    if problem:
        return {"status": "unavailable", "database": problem, "release": RELEASE}, 503
    problems = cloud.health.problems()
    told = {p.name: p.reason for p in problems}
    if any(p.vital for p in problems):
        return {"status": "unavailable", "database": "ok", "release": RELEASE, "problems": told}, 503
    if problems:
        return {"status": "degraded", "database": "ok", "release": RELEASE, "problems": told}, 200
    return {"status": "ok", "database": "ok", "release": RELEASE}, 200
