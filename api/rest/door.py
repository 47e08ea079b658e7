"""The REST door below /v1: a table of path, method and function; every error is a problem+json."""

import structlog
from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from api.rest import audit
from api.rest.body import read_body
from api.rest.hosts import JoinBody, join_host
from api.rest.problem import problem, problem_of, status_of
from controller.domain.errors import CloudError
from controller.operations.cloud import Cloud

PREFIX = "/v1"
log = structlog.get_logger(__name__)


def create_door(cloud: Cloud) -> Blueprint:
    """The door of a cloud."""
    door = Blueprint("rest", __name__, url_prefix=PREFIX)

    def hosts_join() -> Response:
        status, document = join_host(cloud, read_body(request, JoinBody, cloud.settings.api.max_body_bytes))
        answer: Response = jsonify(document)
        answer.status_code = status
        answer.headers["Cache-Control"] = "no-store"  # it holds a password
        return answer

    def run_audit() -> Response:
        audit.authorize(cloud, request.headers.get("Authorization", ""))
        answer: Response = jsonify(
            audit.run(cloud, read_body(request, audit.AuditBody, cloud.settings.api.max_body_bytes))
        )
        return answer

    door.add_url_rule("/audit", view_func=run_audit, methods=["POST"], provide_automatic_options=False)
    door.add_url_rule("/hosts/join", view_func=hosts_join, methods=["POST"], provide_automatic_options=False)
    door.register_error_handler(CloudError, _cloud_error)
    door.register_error_handler(Exception, _unexpected)
    return door


def is_rest(path: str) -> bool:
    """Whether a path is this door's, known to it or not."""
    return path.startswith(f"{PREFIX}/")


def http_problem(error: HTTPException) -> Response:
    """The answer where no function was found, or the request could not be read."""
    answer = problem(error.code or 500, f"http.{error.code}", error.description or error.name)
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


def _cloud_error(error: CloudError) -> Response:
    status = status_of(error)
    if status == 500:
        log.error("request failed", path=request.path, exc_info=error)
    else:
        log.info("refused", path=request.path, status=status, code=error.code, client=request.remote_addr)
    return problem_of(error)


def _unexpected(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return http_problem(error)
    log.error("request failed", path=request.path, exc_info=error)
    return problem_of(CloudError())
