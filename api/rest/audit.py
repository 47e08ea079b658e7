"""The audit over REST, for the operator's own command: with the embedded bus only this process can ask the agents."""

from dataclasses import dataclass
from typing import Any

from controller.domain.errors import NotAuthorized
from controller.operations.audit.operator_token import is_operator
from controller.operations.audit.run import AuditOptions, document, run_audit
from controller.operations.cloud import Cloud


@dataclass(frozen=True)
class AuditBody:
    """What the command asks for; see ``AuditOptions``."""

    repair: bool
    settle_s: float
    timeout_s: float
    most_removals: int


def run(cloud: Cloud, body: AuditBody) -> dict[str, Any]:
    """The report. Raises InvalidParameter, DatabaseUnavailable."""
    options = AuditOptions(body.repair, True, body.settle_s, body.timeout_s, body.most_removals)
    return document(run_audit(cloud, options))


def authorize(cloud: Cloud, authorization: str) -> None:
    """Raises: NotAuthorized: it is not the operator's token."""
    if not is_operator(cloud.settings, authorization):
        raise NotAuthorized(action="audit the cloud")
