"""The path of one EC2 request: read, authenticated, parsed, carried out, answered; errors in EC2's own format."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from flask import Request, Response

from api.ec2.actions.context import Context
from api.ec2.actions.table import ACTIONS
from api.ec2.authentication import authenticate
from api.ec2.dry_run import DryRun
from api.ec2.faults import answer_for
from api.ec2.protocol.errors import DryRunOperation, InvalidAction, RequestEntityTooLarge, UnsupportedOperation
from api.ec2.protocol.form import read_call
from api.ec2.protocol.model import operation
from api.ec2.protocol.request import parse
from api.ec2.protocol.response import serialize
from api.ec2.protocol.signature import SignedRequest
from api.metrics import Metrics
from controller.domain.errors import CloudError, DatabaseUnavailable
from controller.operations.cloud import Cloud
from controller.operations.instances.launch_batches import LaunchBatcher
from controller.outages import OUTAGES

log = structlog.get_logger(__name__)
_CONTENT_TYPE = "text/xml;charset=UTF-8"
_QUIET = ("Describe", "Get")
# At most this many instances are named in the log line of a request.
_NAMED = 20


@dataclass
class _Exchange:
    """What is known of a request so far, for its line in the log."""

    request_id: str
    client: str
    action: str = "unknown"
    user: str = ""
    project_id: str = ""
    instances: Sequence[str] = ()


class Ec2Door:
    """EC2's query protocol on a cloud."""

    def __init__(self, cloud: Cloud, metrics: Metrics) -> None:
        self._cloud = cloud
        self._metrics = metrics
        self._launches = LaunchBatcher(cloud)

    def answer(self, http: Request) -> Response:
        """Answer one request; never raises."""
        exchange = _Exchange(self._cloud.ids.request_id(), http.remote_addr or "")
        began = time.perf_counter()
        try:
            status, document = 200, self._perform(http, exchange)
        except CloudError as error:
            status, document = self._refuse(error, exchange)
        except Exception as error:
            log.exception("request failed", request_id=exchange.request_id, action=exchange.action)
            status, document = answer_for(CloudError(), exchange.request_id)
            self._log(exchange, status, type(error).__name__)
        else:
            self._log(exchange, status)
        self._metrics.count(exchange.action, status, time.perf_counter() - began)
        headers = {"x-amzn-RequestId": exchange.request_id, "Cache-Control": "no-store"}
        return Response(document, status, headers, content_type=_CONTENT_TYPE)

    def _perform(self, http: Request, exchange: _Exchange) -> bytes:
        signed = _signed_request(http, self._cloud.settings.api.max_body_bytes)
        call = read_call(signed.query_string, signed.body)
        model = operation(call.action)
        if model is None:
            raise InvalidAction(action=call.action[:100])
        exchange.action = call.action
        principal = authenticate(self._cloud, signed)
        exchange.user, exchange.project_id = principal.user_name, principal.project_id
        handler = ACTIONS.get(call.action)
        if handler is None:
            raise UnsupportedOperation(action=call.action)
        parameters = parse(call.pairs, model)
        exchange.instances = parameters.get("InstanceIds") or ([i] if (i := parameters.get("InstanceId")) else [])
        is_dry = parameters.get("DryRun", False)
        cloud = DryRun.of(self._cloud) if is_dry else self._cloud
        launches = LaunchBatcher(cloud) if is_dry else self._launches
        result = handler(Context(cloud, principal, call.action, exchange.request_id, launches), parameters)
        if is_dry:
            raise DryRunOperation
        return serialize(model, result, request_id=exchange.request_id, version=call.version)

    def _refuse(self, error: CloudError, exchange: _Exchange) -> tuple[int, bytes]:
        status, document = answer_for(error, exchange.request_id)
        if isinstance(error, DatabaseUnavailable):
            OUTAGES.warn(log, "requests are not served", error)
        elif status >= 500:
            log.warning(
                "request not served", request_id=exchange.request_id, action=exchange.action,
                code=error.code, reason=str(error),
            )  # fmt: skip
        self._log(exchange, status, error.code)
        return status, document

    def _log(self, exchange: _Exchange, status: int, code: str = "") -> None:
        quiet = status == 200 and exchange.action.startswith(_QUIET)
        about = {"instance": ",".join(exchange.instances[:_NAMED])} if exchange.instances else {}
        (log.debug if quiet else log.info)(
            "request", action=exchange.action, status=status, code=code, project=exchange.project_id,
            user=exchange.user, client=exchange.client, request_id=exchange.request_id,
            **about,
        )  # fmt: skip


def _signed_request(http: Request, max_body_bytes: int) -> SignedRequest:
    """The request as it came over the wire: its path and query still encoded, its body not yet a form.

    Raises:
        RequestEntityTooLarge
    """
    if (http.content_length or 0) > max_body_bytes:
        raise RequestEntityTooLarge(reason=f"at most {max_body_bytes} bytes are accepted")
    body = http.get_data(cache=False, parse_form_data=False)
    if len(body) > max_body_bytes:
        raise RequestEntityTooLarge(reason=f"at most {max_body_bytes} bytes are accepted")
    target = http.environ["REQUEST_URI"]
    path, _, query_string = target.partition("?")
    if not path.startswith("/"):  # the absolute form, as proxies are asked: RFC 9112, 3.2.2
        path = urlsplit(path).path or "/"
    headers = {name.lower(): value for name, value in http.headers.items()}
    return SignedRequest(http.method, path, query_string, headers, body)
