"""User data: what an owner gives a guest for its first start. It is kept, and handed to the guest, byte by byte."""

import base64
import binascii

from controller.domain.errors import InvalidUserData

# EC2's limit, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
MAX_BYTES = 16384


def check_user_data(text: str) -> None:
    """Raises InvalidUserData: the text is not base64, or of more than ``MAX_BYTES`` bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidUserData(reason="it has to be base64") from error
    if len(data) > MAX_BYTES:
        raise InvalidUserData(reason=f"it has {len(data)} bytes, {MAX_BYTES} are accepted")


def user_data_bytes(text: str) -> bytes:
    """The user data of a row; what an earlier release has kept and is not base64 is given as it is."""
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return text.encode()
