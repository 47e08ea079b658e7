"""Session tokens of IMDSv2: signed, bound to one instance, kept nowhere.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"""

import hashlib
import hmac
import re

MIN_TTL_S, MAX_TTL_S = 1, 21600
_TOKEN = re.compile(r"(?P<expires>[0-9a-f]{1,12})\.(?P<signature>[0-9a-f]{64})", re.ASCII)


def parse_ttl(text: str | None) -> int | None:
    """The seconds that a header asks for; None if it does not ask for a time that is allowed."""
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text.strip()):
        return None
    ttl_s = int(text)
    return ttl_s if MIN_TTL_S <= ttl_s <= MAX_TTL_S else None


def make_token(key: bytes, instance_id: str, now_s: float, ttl_s: int) -> str:
    """A token for this instance."""
    expires = f"{int(now_s) + ttl_s:x}"
    return f"{expires}.{_signature(key, instance_id, expires)}"


def is_valid(key: bytes, instance_id: str, now_s: float, token: str) -> bool:
    """Whether this instance was given the token, and it may still be used."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return False
    signature = _signature(key, instance_id, found["expires"])
    return hmac.compare_digest(signature, found["signature"]) and int(found["expires"], 16) > now_s


def _signature(key: bytes, instance_id: str, expires: str) -> str:
    return hmac.new(key, f"{instance_id}:{expires}".encode(), hashlib.sha256).hexdigest()
