"""The metadata door: which guest asks, with which token, for what.

The caller is identified by the two ends of its connection alone. Requests that went through a proxy are refused, as in
EC2: a client that can make a proxy ask could read the credentials of another guest.
"""

from http import HTTPStatus

from flask import Flask, Response, request

from api.metadata import nocloud, tree
from api.metadata.caller_cache import CallerCache
from api.metadata.tokens import is_valid, make_token, parse_ttl
from controller.domain.errors import Unavailable
from controller.operations.cloud import Cloud
from controller.operations.instances.metadata import GuestMetadata, find_guest
from controller.operations.secrets import derived_key

# Where the listener writes the connection's own end.
LOCAL_ADDRESS = "pileus.local_address"
_TOKEN_PATH = "latest/api/token"  # noqa: S105 - a path
_TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_FORWARDED = ("X-Forwarded-For", "Forwarded")
_PURPOSE = "metadata-token"
_RETRY_AFTER_S = "2"
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


def create_app(cloud: Cloud, recent: CallerCache | None = None) -> Flask:
    """The WSGI application."""
    app = Flask(__name__, static_folder=None)
    callers = recent or CallerCache(lambda remote, local: cloud.read(lambda tx: find_guest(tx, remote, local)))

    def any_path(path: str) -> Response:
        if any(name in request.headers for name in _FORWARDED):
            return _plain(HTTPStatus.FORBIDDEN)
        try:
            guest = callers.find(request.remote_addr or "", request.environ.get(LOCAL_ADDRESS, ""))
        except Unavailable:
            answer = _plain(HTTPStatus.SERVICE_UNAVAILABLE)
            answer.headers["Retry-After"] = _RETRY_AFTER_S
            return answer
        if guest is None:
            return _plain(HTTPStatus.NOT_FOUND)
        return _answer(cloud, guest, path)

    app.url_map.merge_slashes = False
    for rule, defaults in (("/", {"path": ""}), ("/<path:path>", None)):
        app.add_url_rule(
            rule, "any_path", any_path, defaults=defaults, methods=_METHODS, provide_automatic_options=False
        )
    return app


def _answer(cloud: Cloud, guest: GuestMetadata, path: str) -> Response:
    is_token = path.rstrip("/") == _TOKEN_PATH
    if is_token and request.method == "PUT":
        return _new_token(cloud, guest)
    if is_token or request.method not in ("GET", "HEAD"):
        return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
    token = request.headers.get(_TOKEN)
    if token is not None and not is_valid(_key(cloud), guest.instance.id, cloud.clock().timestamp(), token):
        return _plain(HTTPStatus.UNAUTHORIZED)
    seed, _, name = path.partition("/")
    body = nocloud.answer(guest, name) if seed == "nocloud" else tree.answer(guest, path)
    if body is None:
        return _plain(HTTPStatus.NOT_FOUND)
    kind = "application/octet-stream" if path.rstrip("/").endswith("user-data") else "text/plain"
    return Response(body, content_type=kind)


def _new_token(cloud: Cloud, guest: GuestMetadata) -> Response:
    ttl_s = parse_ttl(request.headers.get(_TTL))
    if ttl_s is None:
        return _plain(HTTPStatus.BAD_REQUEST)
    token = make_token(_key(cloud), guest.instance.id, cloud.clock().timestamp(), ttl_s)
    return Response(token, content_type="text/plain", headers={_TTL: str(ttl_s)})


def _key(cloud: Cloud) -> bytes:
    return derived_key(cloud.settings, _PURPOSE)


def _plain(status: HTTPStatus) -> Response:
    return Response(f"{status.value} - {status.phrase}\n", status=status, content_type="text/plain")
