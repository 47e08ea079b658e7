"""qemu-img(1). A format is always named: qemu-img never guesses one from what a guest has written."""

import json
from pathlib import Path

from controller.programs.run import run


def create_overlay(path: Path, *, base: Path, base_format: str, size_bytes: int) -> None:
    """Make a qcow2 file over ``base``. Raises CommandFailed."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", str(base)]
    run([*argv, str(path), str(size_bytes)])


def backing_format(path: Path) -> str:
    """The format of an overlay's base, as the overlay names it.

    Raises:
        CommandFailed. ValueError, KeyError: the file is no overlay, or its base has no format.
    """
    text = run(["qemu-img", "info", "-f", "qcow2", "--output=json", str(path)])
    return str(json.loads(text)["backing-filename-format"])


def set_base(path: Path, base: str, base_format: str) -> None:
    """Have an overlay name another file as its base, whose content is the same; nothing is copied.

    Raises:
        CommandFailed
    """
    run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", base_format, "-b", base, str(path)])
