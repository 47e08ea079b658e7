"""Processes and interfaces of guests on this machine."""

import os
from pathlib import Path

from controller.conf.settings import Settings
from controller.domain.ids import domain_uuid
from controller.domain.messages import (
    GuestSpec,
)

INTERFACES = Path("/sys/class/net")


# Prints "up" on the first serial port by the BIOS, then halts for ever: mov ax,0e00h+c; mov dx,3f8h; out dx,al.
BOOT_SECTOR = b"\xba\xf8\x03" + b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in b"up\n") + b"\xfa\xf4\xeb\xfd"


def qemu_pids(settings: Settings, spec: GuestSpec) -> set[int]:
    uuid = domain_uuid(settings.general.cloud_id, spec.instance_id).encode()
    return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if uuid in command_line(pid)}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
