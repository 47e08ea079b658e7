"""What is told to systemd, where it asked to be told (sd_notify(3))."""

import os
import socket

import structlog

log = structlog.get_logger(__name__)


def notify(*lines: str) -> None:
    """Tell it; nothing happens where no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(1)
            out.sendto("\n".join(lines).encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("systemd could not be notified", reason=str(error))
