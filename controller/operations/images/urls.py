"""Where an agent fetches an image: a URL of our own API, signed and short-lived, for agents have no credentials."""

import hashlib
import hmac
from datetime import datetime, timedelta

from controller.conf.settings import Settings
from controller.domain.errors import NotAuthorized
from controller.operations.secrets import derived_key


def image_url(settings: Settings, sha256: str, fmt: str, now: datetime) -> str:
    """A URL under which ``api/images`` serves this file for ``[images] url_valid_s``."""
    expires = int((now + timedelta(seconds=settings.images.url_valid_s)).timestamp())
    signature = _signature(settings, sha256, fmt, expires)
    return f"{settings.public_url}/images/{sha256}.{fmt}?expires={expires}&signature={signature}"


def check_image_url(settings: Settings, sha256: str, fmt: str, expires: int, signature: str, now: datetime) -> None:
    """Raise NotAuthorized unless ``image_url`` made this and it is still valid."""
    expected = _signature(settings, sha256, fmt, expires)
    if not hmac.compare_digest(expected, signature) or expires < now.timestamp():
        raise NotAuthorized(action="read this image: the URL is not valid, or not any more")


def _signature(settings: Settings, sha256: str, fmt: str, expires: int) -> str:
    key = derived_key(settings, "image-url")
    return hmac.new(key, f"{sha256}.{fmt}:{expires}".encode(), hashlib.sha256).hexdigest()
