"""Identifiers: EC2-shaped ids, libvirt UUIDs, access keys; the randomness is passed in.

EC2 ids are a prefix and 17 hexadecimal digits (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-resource-ids.html).
"""

import re
import uuid
from dataclasses import dataclass
from random import Random, SystemRandom

INSTANCE, RESERVATION, IMAGE, KEY_PAIR, NETWORK, PLACEMENT_GROUP = "i", "r", "ami", "key", "net", "pg"
_HEX = 17
_ID = re.compile(r"(?P<prefix>[a-z]+)-[0-9a-f]{17}")
_ACCESS_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SECRET_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # noqa: S105
# Marks a UUID (version 8, RFC 9562) as one of a Pileus guest.
_MARK = "b16"


@dataclass(frozen=True)
class IdSource:
    """Makes ids out of one source of randomness: the system's, or a seeded one in a simulation."""

    random: Random

    @classmethod
    def system(cls) -> "IdSource":
        """Ids that cannot be guessed."""
        return cls(SystemRandom())

    def new(self, prefix: str) -> str:
        """A new id such as ``i-0123456789abcdef0``."""
        return f"{prefix}-{self.random.getrandbits(4 * _HEX):0{_HEX}x}"

    def request_id(self) -> str:
        """A new request id, in the form of a UUID as EC2 gives it."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def account(self) -> str:
        """A new 12-digit account number."""
        return f"{self.random.randrange(10**11, 10**12)}"

    def access_key(self) -> str:
        """A new access key id, 20 characters, as AWS forms them."""
        return "AKIA" + "".join(self.random.choices(_ACCESS_KEY_ALPHABET, k=16))

    def secret(self, length: int = 40) -> str:
        """A new secret of letters and digits: safe in a shell and in a URL."""
        return "".join(self.random.choices(_SECRET_ALPHABET, k=length))

    def cloud_id(self) -> str:
        """A new cloud id, 8 hexadecimal digits; names what this cloud owns on a shared host."""
        return f"{self.random.getrandbits(32):08x}"


def is_id(value: str, prefix: str) -> bool:
    """Whether ``value`` has the form of an id of this kind."""
    found = _ID.fullmatch(value)
    return found is not None and found["prefix"] == prefix


def domain_uuid(cloud_id: str, instance_id: str) -> str:
    """The libvirt UUID of an instance: a version 8 UUID that holds both ids, so that it can be read back."""
    if not is_id(instance_id, INSTANCE):
        raise ValueError(f"not an instance id: {instance_id!r}")
    digits = instance_id.removeprefix("i-")
    return f"{cloud_id}-{digits[0:4]}-8{digits[4:7]}-8{_MARK}-{digits[7:17]}00"


def instance_of_uuid(cloud_id: str, domain: str) -> str | None:
    """The instance whose guest has this UUID; None for a guest that is not this cloud's."""
    parts = domain.lower().split("-")
    if (
        len(parts) != 5
        or parts[0] != cloud_id
        or parts[2][:1] != "8"
        or parts[3] != f"8{_MARK}"
        or parts[4][10:] != "00"
    ):
        return None
    return f"i-{parts[1]}{parts[2][1:]}{parts[4][:10]}"
