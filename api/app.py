"""The web application: which path leads to which door."""

from typing import Any

import structlog
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from api.ec2.door import Ec2Door
from api.errors import row_for
from api.health import health
from api.images.download import download
from api.metrics import CONTENT_TYPE, Metrics
from api.rest.door import create_door, http_problem, is_rest
from controller.domain.errors import CloudError
from controller.operations.cloud import Cloud

log = structlog.get_logger(__name__)


def create_app(cloud: Cloud) -> Flask:
    """The application on a cloud; it opens nothing before the first request."""
    app = Flask("pileus", static_folder=None)
    # A redirect would lose the form, and the path is signed.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    metrics = Metrics(cloud)
    door = Ec2Door(cloud, metrics)

    def ec2(rest: str = "") -> Response:  # noqa: ARG001 - any path below /ec2 is the same door
        return door.answer(request)

    for path in ("/", "/ec2", "/ec2/", "/ec2/<path:rest>"):
        app.add_url_rule(path, "ec2", ec2, methods=["GET", "POST"], provide_automatic_options=False)
    app.add_url_rule("/healthz", "health", lambda: health(cloud))
    app.add_url_rule("/metrics", "metrics", lambda: Response(metrics.render(), content_type=CONTENT_TYPE))
    app.add_url_rule("/images/<name>", "image", lambda name: download(cloud, name, request))
    app.register_blueprint(create_door(cloud))
    app.register_error_handler(CloudError, _cloud_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _answer(status: int, code: str, message: str) -> tuple[Response, int]:
    return jsonify(code=code, message=message), status


def _cloud_error(error: CloudError) -> Any:
    row = row_for(error)
    return _unexpected(error) if row.internal else _answer(row.rest, error.code, str(error))


def _http_error(error: HTTPException) -> Any:
    if is_rest(request.path):
        return http_problem(error)
    return _answer(error.code or 500, f"http.{error.code}", error.description or error.name)


def _unexpected(error: Exception) -> Any:
    log.error("request failed", path=request.path, exc_info=error)
    return _answer(500, "internal", "An internal error has occurred; see the log.")
