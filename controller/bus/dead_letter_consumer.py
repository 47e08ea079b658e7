"""The consumer of the dead letters."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from controller.bus.consumer import ERROR_HEADER, FROM_HEADER, QueueConsumer
from controller.bus.topology import DEAD
from controller.conf.settings import Settings
from controller.domain.errors import Unavailable

log = structlog.get_logger(__name__)

# Takes a dead letter: its body and where it came from and why.
DeadHandler = Callable[[bytes, dict[str, str]], None]


class DeadLetterConsumer(QueueConsumer):
    """Consumes the dead letters, set aside by a consumer or by the broker."""

    def __init__(self, settings: Settings, handler: DeadHandler) -> None:
        super().__init__(settings, [DEAD], lambda _: None, name=DEAD)
        self._dead_handler = handler

    def _queue(self, name: str) -> Any:  # noqa: ARG002
        return self._topology.dead_letters()

    def _take(self, raw: Any) -> None:
        headers = raw.headers or {}
        death = _death(headers)
        about = {
            "queue": str(headers.get(FROM_HEADER) or _first(death.get("routing-keys")) or ""),
            "reason": str(headers.get(ERROR_HEADER) or f"set aside by the broker: {death.get('reason', 'unknown')}"),
        }
        body = raw.body.encode() if isinstance(raw.body, str) else bytes(raw.body)
        failures = 0
        while True:
            try:
                self._dead_handler(body, about)
                break
            except Unavailable as error:
                log.warning("dead letter waits", reason=str(error))
            except Exception:
                failures += 1
                log.exception("dead letter is not kept", failures=failures, body=body[:2000], **about)
                if failures >= self._settings.bus.max_attempts:
                    break  # the next ones are to be kept
            if self._stop.wait(1.0):
                return
            self._keep_alive()
        raw.ack()


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the broker says of a message that it set aside; any program may have written the header."""
    found = _first(headers.get("x-death"))
    return found if isinstance(found, Mapping) else {}


def _first(found: object) -> object:
    return found[0] if isinstance(found, list) and found else None
