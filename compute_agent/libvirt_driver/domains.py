"""One domain of libvirt: what may be asked of it at any time, also if it is gone meanwhile."""

from collections.abc import Callable
from typing import TypeVar

import libvirt

T = TypeVar("T")

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


def is_active(domain: "libvirt.virDomain") -> bool:
    """Whether it has power."""
    return bool(unless_gone(domain.isActive))


def state(domain: "libvirt.virDomain") -> list[int]:
    """State and reason, as in ``virDomainState``; empty when the guest is gone."""
    return unless_gone(domain.state) or []


def take_power(domain: "libvirt.virDomain") -> None:
    """Take its power at once."""
    unless_gone(domain.destroy)


def undefine(domain: "libvirt.virDomain") -> None:
    """Have libvirt forget it, with all that it keeps beside the definition."""
    unless_gone(lambda: domain.undefineFlags(_UNDEFINE))


def unless_gone(call: Callable[[], T]) -> T | None:
    """What the call returns; None when the guest is off or gone already, which is as good."""
    try:
        return call()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return None
        raise
