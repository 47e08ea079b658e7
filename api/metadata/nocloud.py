"""The same guest in the form of cloud-init's NoCloud data source, which stock images look for by the SMBIOS serial
``ds=nocloud-net;s=http://169.254.169.254/nocloud/``.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

import json

from controller.operations.instances.metadata import GuestMetadata


def answer(guest: GuestMetadata, name: str) -> bytes | None:
    """A file of the seed; user data and vendor data are always there, empty where there are none."""
    match name:
        case "meta-data":
            return _meta_data(guest)
        case "user-data":
            return guest.user_data
        case "vendor-data":
            return b""
    return None


def _meta_data(guest: GuestMetadata) -> bytes:
    """YAML, each value written as JSON, which is YAML too and quotes whatever a key's comment may hold."""
    document = {
        "instance-id": guest.instance.id,
        "local-hostname": guest.hostname,
        "availability-zone": guest.zone,
        "region": guest.region,
        "public-keys": [guest.public_key] if guest.public_key else [],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items()).encode()
