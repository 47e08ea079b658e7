"""What guests want of the CPU, as libvirt reports it."""

import re
from collections.abc import Mapping, Sequence

import libvirt

# Used, and waited for in the queue of the host's scheduler.
_VCPU_NS = re.compile(r"vcpu\.\d+\.(time|delay)")
_NS = 1e9


def wanted_cpu_s(connection: "libvirt.virConnect", domains: Sequence["libvirt.virDomain"]) -> Mapping[str, float]:
    """Seconds of one core by domain UUID; domains that do not run are left out.

    Raises:
        libvirt.libvirtError
    """
    if not domains:
        return {}
    try:
        stats = connection.domainListGetStats(
            list(domains), libvirt.VIR_DOMAIN_STATS_VCPU, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return {d.UUIDString(): d.info()[4] / _NS for d in domains}  # Xen's driver: used, not waited for
    found = {}
    for domain, values in stats:
        if wanted := [v for name, v in values.items() if _VCPU_NS.fullmatch(name)]:
            found[domain.UUIDString()] = sum(wanted) / _NS
    return found
