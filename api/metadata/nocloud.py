"""The same facts in the form of cloud-init's NoCloud data source, which stock images look for by the SMBIOS serial
``ds=nocloud-net;s=http://169.254.169.254/nocloud/``.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

import json

from api.metadata.facts import Facts


def answer(facts: Facts, name: str) -> bytes | None:
    """A file of the seed; user data and vendor data are always there, empty where there are none."""
    match name:
        case "meta-data":
            return _meta_data(facts)
        case "user-data":
            return facts.user_data
        case "vendor-data":
            return b""
    return None


def _meta_data(facts: Facts) -> bytes:
    """YAML, each value written as JSON, which is YAML too and quotes whatever a key's comment may hold."""
    document = {
        "instance-id": facts.instance_id,
        "local-hostname": facts.hostname,
        "availability-zone": facts.zone,
        "region": facts.region,
        "public-keys": [facts.public_key] if facts.public_key else [],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items()).encode()
