"""A request for instances, and what can be said of it without looking anything up."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from controller.domain.errors import InvalidCombination, InvalidParameter
from controller.domain.instances import ShutdownBehavior
from controller.domain.user_data import check_user_data

MAX_COUNT = 10000
# Came after the first tokens were given: a request without them has the digest that it always had.
_LATER = ("network_id", "wanted_ip", "group_name", "shutdown_behavior")
# The names that fields had when the first tokens were given.
_EARLIER_NAMES = {"address": "wanted_ip"}


@dataclass(frozen=True)
class LaunchRequest:
    """What a client asks for. ``user_data`` is base64; ``tags`` go to each instance.

    ``network_id`` empty: the project's default network. ``address`` empty: any address of it.
    ``shutdown_behavior`` is a ``ShutdownBehavior``; empty: stop.
    """

    project_id: str
    user_id: str
    image_id: str
    instance_type: str
    min_count: int = 1
    max_count: int = 1
    key_name: str = ""
    user_data: str = ""
    client_token: str = ""
    zone: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    reservation_tags: tuple[tuple[str, str], ...] = ()
    network_id: str = ""
    address: str = ""
    group_name: str = ""
    shutdown_behavior: str = ""

    @property
    def kind(self) -> "LaunchRequest":
        """Requests of the same kind may be launched together: what each keeps for itself is left out."""
        return replace(
            self, user_id="", user_data="", client_token="", tags=(), reservation_tags=(), min_count=1, max_count=1
        )

    def digest(self) -> str:
        """Two requests with the same token must have the same."""
        given = {_EARLIER_NAMES.get(name, name): value for name, value in asdict(self).items()}
        said = {name: value for name, value in given.items() if value or name not in _LATER}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_launch(request: LaunchRequest) -> None:
    """Raises InvalidParameter, InvalidCombination, InvalidUserData: no cloud could accept the request."""
    check_shutdown_behavior(request.shutdown_behavior or ShutdownBehavior.STOP)
    check_user_data(request.user_data)
    if not 1 <= request.min_count <= request.max_count <= MAX_COUNT:
        raise InvalidParameter(
            parameter="min_count/max_count",
            value=f"{request.min_count}/{request.max_count}",
            reason=f"they must satisfy 1 <= min_count <= max_count <= {MAX_COUNT}",
        )
    if request.address and request.max_count != 1:
        raise InvalidCombination(reason="An address can be asked for one instance only, not for several")


def check_shutdown_behavior(name: str) -> None:
    """Raises InvalidParameter: there is no such behavior."""
    if name not in list(ShutdownBehavior):
        reason = f"it has to be {' or '.join(ShutdownBehavior)}"
        raise InvalidParameter(parameter="shutdown_behavior", value=name[:100], reason=reason)
