"""Who may have the running cloud audit itself: whoever can read its key file."""

import hmac

from controller.conf.settings import Settings
from controller.operations.secrets import derived_key


def operator_token(settings: Settings) -> str:
    """What the operator's command shows to the API of its own machine. Raises ConfigurationError."""
    return derived_key(settings, "operator").hex()


def is_operator(settings: Settings, authorization: str) -> bool:
    """Whether this Authorization header holds it; compared in constant time."""
    kind, _, token = authorization.partition(" ")
    return kind == "Bearer" and hmac.compare_digest(token.encode(), operator_token(settings).encode())
