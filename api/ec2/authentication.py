"""Which user signed a request."""

from api.ec2.protocol.signature import SignedRequest, claimed_key, verify
from controller.operations.accounts.users import Principal, find_access_key
from controller.operations.cloud import Cloud


def authenticate(cloud: Cloud, request: SignedRequest) -> Principal:
    """The owner of the access key, once the signature has been verified with its secret.

    Raises:
        AuthenticationFailed, SignatureDoesNotMatch, RequestExpired
    """
    key_id = claimed_key(request)
    principal, secret = cloud.ask(lambda tx: find_access_key(tx, key_id))
    verify(request, secret, cloud.clock(), cloud.settings.api.clock_window_s)
    return principal
