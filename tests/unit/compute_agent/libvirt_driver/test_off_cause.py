"""Why a guest is off: only a shutdown of its own counts as one, and doubt does not."""

from pathlib import Path

import libvirt
import pytest

from compute_agent.libvirt_driver.off_cause import off_cause
from controller.domain.guests import OffCause

_START = b"2026-01-01 00:00:00.000+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4\n"
_SIGNAL = b"qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)\n"
_LIBVIRT = b"qemu-system-x86_64: terminating on signal 15 from pid 28 (/usr/sbin/libvirtd)\n"
_END = b"2026-01-01 00:00:09.000+0000: shutting down, reason=shutdown\n"
_OFF = libvirt.VIR_DOMAIN_SHUTOFF


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (_START + _END, OffCause.SHUTDOWN),
        (_START + _LIBVIRT + _END, OffCause.SHUTDOWN),
        (_START + _SIGNAL + _END, OffCause.DESTROYED),
        (_START + _SIGNAL.replace(b" (/sbin/init)", b"") + _END, OffCause.DESTROYED),
        (_START + _SIGNAL.replace(b"/sbin/init", b"<unknown process>") + _END, OffCause.DESTROYED),
        (_START + _SIGNAL + _END + _START + _END, OffCause.SHUTDOWN),
        (_START + _END + _START + _SIGNAL + _END, OffCause.DESTROYED),
        (_START + b"x" * 100_000 + _SIGNAL + _END, OffCause.DESTROYED),
        (None, OffCause.UNKNOWN),
    ],
)
def test_a_signal_is_no_shutdown(tmp_path: Path, text: bytes | None, cause: OffCause) -> None:
    log = tmp_path / "guest.log"
    if text is not None:
        log.write_bytes(text)
    assert off_cause([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN], log) is cause


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED], OffCause.CRASHED),
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED], OffCause.CRASHED),
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED], OffCause.DESTROYED),
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON], OffCause.UNKNOWN),
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN], OffCause.UNKNOWN),
        ([_OFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN], OffCause.SHUTDOWN),
        ([libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED], OffCause.UNKNOWN),
        ([], OffCause.UNKNOWN),
    ],
)
def test_what_the_hypervisor_says(state: list[int], cause: OffCause) -> None:
    assert off_cause(state, None) is cause
