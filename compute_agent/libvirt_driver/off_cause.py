"""Why a guest is off: what libvirt says of its end, and the log that its QEMU has left."""

import re
from collections.abc import Sequence
from pathlib import Path

import libvirt

from controller.domain.guests import OffCause

_CAUSES = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffCause.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffCause.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffCause.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffCause.CRASHED,
}
_TAIL_BYTES = 64 * 1024
_STARTED = b"starting up libvirt version"
_SIGNALLED = re.compile(rb"terminating on signal \d+(?: from pid \d+(?: \((.*)\))?)?")
# After a guest has shut down libvirt ends its QEMU so, too.
_LIBVIRT = (b"libvirtd", b"virtqemud")


def off_cause(state: Sequence[int], log: Path | None) -> OffCause:
    """Why, of a state and reason as in ``virDomainState``.

    QEMU ends in order when it is sent SIGTERM, SIGINT or SIGHUP, and libvirt takes that for a shutdown of the guest;
    only QEMU's own log shows the difference. ``log`` None: the hypervisor has no such signals.
    """
    if not state or state[0] != libvirt.VIR_DOMAIN_SHUTOFF:
        return OffCause.UNKNOWN
    cause = _CAUSES.get(state[1], OffCause.UNKNOWN)
    if cause is OffCause.SHUTDOWN and log is not None:
        return _by_log(log)
    return cause


def _by_log(log: Path) -> OffCause:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return OffCause.UNKNOWN
    last_run = tail[max(0, tail.rfind(_STARTED)) :]
    senders = [sent[1] or b"" for sent in _SIGNALLED.finditer(last_run)]
    by_libvirt = all(sender.rpartition(b"/")[2] in _LIBVIRT for sender in senders)
    return OffCause.SHUTDOWN if by_libvirt else OffCause.DESTROYED
