"""Names of what a cloud owns on a host; the cloud id in each keeps two clouds on one machine apart.

An interface's name has 15 characters at most (IFNAMSIZ, linux/if.h).
"""

import re

_CLOUD_DIGITS = 4
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)


def interface_prefix(cloud_id: str) -> str:
    """What every interface of this cloud begins with."""
    return f"pl{cloud_id[:_CLOUD_DIGITS]}"


def bridge_prefix(cloud_id: str) -> str:
    """What every bridge of this cloud begins with; digits follow."""
    return f"{interface_prefix(cloud_id)}b"


def tap_prefix(cloud_id: str) -> str:
    """What every guest's tap of this cloud begins with."""
    return f"{interface_prefix(cloud_id)}t"


def trunk_prefix(cloud_id: str) -> str:
    """What every VLAN sub-interface of this cloud begins with; digits follow."""
    return f"{interface_prefix(cloud_id)}v"


def bridge_name(cloud_id: str, vlan: int) -> str:
    """The bridge that carries a VLAN on a host."""
    return f"{bridge_prefix(cloud_id)}{vlan}"


def tap_name(cloud_id: str, instance_id: str, index: int = 0) -> str:
    """The host's end of a guest's interface: 15 characters, made of the instance id's first 8 digits.

    Further interfaces of the guest (``index`` > 0) trade the last digit for their number.
    """
    digits = instance_id.removeprefix("i-")[:8]
    if index:
        digits = f"{digits[:7]}{chr(ord('g') + index - 1)}"
    return f"{tap_prefix(cloud_id)}{digits}"


def trunk_name(cloud_id: str, vlan: int) -> str:
    """The VLAN sub-interface of the trunk that joins a bridge to the other hosts'."""
    return f"{trunk_prefix(cloud_id)}{vlan}"


def nft_table(cloud_id: str) -> str:
    """The nftables table of this cloud."""
    return f"pileus_{cloud_id}"


def instance_hostname(ip: str) -> str:
    """The host name of the instance that has this address, as EC2 forms it: ``ip-10-128-0-5``."""
    return f"ip-{ip.replace('.', '-')}"


def is_dns_label(name: str) -> bool:
    """Whether this is one label of a host name, in small letters (RFC 1123, 2.1)."""
    return _LABEL.fullmatch(name) is not None


def lease_hostname(dns_name: str, ip: str) -> str:
    """The host name of the instance that holds this lease: its own name, or else one made of its address."""
    return dns_name or instance_hostname(ip)
