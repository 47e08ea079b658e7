"""Whether this process can serve: its database answers, with tables that this release can work with."""

from controller.domain.errors import DatabaseUnavailable
from controller.domain.release import RELEASE
from controller.operations import schema
from controller.operations.cloud import Cloud


def health(cloud: Cloud) -> tuple[dict[str, str], int]:
    """The answer's document and its HTTP status: 200, or 503 with the reason."""
    try:
        problem = cloud.read(schema.problem)
    except DatabaseUnavailable as error:
        problem = str(error)
    if problem:
        return {"status": "unavailable", "database": problem, "release": RELEASE}, 503
    return {"status": "ok", "database": "ok", "release": RELEASE}, 200
