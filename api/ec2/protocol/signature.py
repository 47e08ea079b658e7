"""The access key of a request and the check of its signature: SigV4 or SigV2, the one that it carries."""

from datetime import datetime

from api.ec2.protocol import signature_v2, signature_v4
from api.ec2.protocol.signed_request import SignedRequest
from controller.domain.errors import AuthenticationFailed

__all__ = ["WINDOW_S", "SignedRequest", "claimed_key", "verify"]

# How far a client's clock may be off, as with AWS.
WINDOW_S = 900


def claimed_key(request: SignedRequest) -> str:
    """The access key id that the request says it is from; nothing has been verified yet.

    Raises:
        AuthenticationFailed: the request carries no signature, more than one, or one that is not complete.
    """
    return signature_v4.claim(request).access_key if _is_v4(request) else signature_v2.access_key(request)


def verify(request: SignedRequest, secret: str, now: datetime, window_s: int = WINDOW_S) -> None:
    """Check the signature against the secret of ``claimed_key``; ``now`` has a time zone.

    Raises:
        SignatureDoesNotMatch: another secret, or the request was changed on its way.
        RequestExpired: the request was signed too long ago, or ahead of this machine's clock.
        AuthenticationFailed: anything else that is missing, doubled or not understood.
    """
    version = signature_v4 if _is_v4(request) else signature_v2
    version.verify(request, secret, now, window_s)


def _is_v4(request: SignedRequest) -> bool:
    carried = (
        signature_v4.is_header_signed(request),
        signature_v4.is_presigned(request),
        signature_v2.is_signed(request),
    )
    if sum(carried) != 1:
        raise AuthenticationFailed(
            reason="the request has more than one signature" if any(carried) else "the request is not signed"
        )
    return not carried[2]
