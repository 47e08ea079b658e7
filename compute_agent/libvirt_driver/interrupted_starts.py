"""Guests that a libvirtd was about to start when it was killed.

It has noted the guest as starting and has no process for it yet. The next libvirtd (9.0) reads the note, restores the
job "start" with it and never ends that job: the guest counts as active without a process, and each call on it waits for
the job until it times out. Without the note the guest is what it is: defined, and off.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def forget_interrupted_starts(notes: Path) -> None:
    """Remove the notes of such guests; to be called while no libvirtd runs.

    ``notes`` is the folder of the status files (``qemuDomainObjSave``): a file ``<name>.xml`` for each active guest,
    its root ``<domstatus state= reason= pid=>``. The process id is noted before QEMU is let go, so that a guest
    without one has no QEMU; any other is left to libvirtd, which asks its QEMU.
    """
    for note in sorted(notes.glob("*.xml")):
        try:
            root = ET.parse(note).getroot()  # noqa: S314 - libvirt's own words
        except ET.ParseError as error:
            log.warning("libvirt's note of a guest cannot be read", instance=note.stem, reason=str(error))
            continue
        if root.tag == "domstatus" and root.get("reason") == "starting up" and root.get("pid") == "0":
            log.warning("libvirtd was killed before it had started a guest", instance=note.stem)
            note.unlink(missing_ok=True)
