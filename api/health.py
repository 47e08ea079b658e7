"""Whether this process can serve: its database answers."""

from sqlalchemy import text

from controller.domain.errors import DatabaseUnavailable
from controller.operations.cloud import Cloud


def health(cloud: Cloud) -> tuple[dict[str, str], int]:
    """The answer's document and its HTTP status: 200, or 503 with the reason."""
    try:
        cloud.read(lambda tx: tx.session.execute(text("SELECT 1")).scalar_one())
    except DatabaseUnavailable as error:
        return {"status": "unavailable", "database": str(error)}, 503
    return {"status": "ok", "database": "ok"}, 200
