"""Writes a cloud's own configuration file: only what differs from the defaults, each with its meaning."""

import os
import re
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

from controller.conf.options import list_opts
from controller.domain.errors import ConfigurationError
from controller.files import sync_folder

Values = Mapping[tuple[str, str], object]
_HEAD = """\
# The configuration of this cloud: only what differs from the defaults.
# Every option with its default and meaning is in etc/pileus.conf.sample; `pileus down` and `pileus up` make a change
# take effect.
"""


def new_text(values: Values) -> str:
    """The text of a new file."""
    text = _HEAD
    for section in dict.fromkeys(s for s, _ in values):
        text += f"\n[{section}]\n"
        for (where, name), value in values.items():
            if where == section:
                text += f"{_comment(section, name)}{_line(name, value)}\n"
    return text


def changed_text(text: str, values: Values) -> str:
    """The text with other values; whatever else a person wrote in it stays as it is."""
    for (section, name), value in values.items():
        text = _set(text, section, name, value)
    return text


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink()
        raise


def _set(text: str, section: str, name: str, value: object) -> str:
    lines = text.splitlines()
    current, end = "", None
    for n, line in enumerate(lines):
        if header := re.fullmatch(r"\s*\[(.+)\]\s*", line):
            current = header[1]
        if current != section:
            continue
        if re.match(rf"{re.escape(name)}\s*[=:]", line):
            lines[n] = _line(name, value)
            break
        if line.strip():
            end = n + 1
    else:
        added = [*_comment(section, name).splitlines(), _line(name, value)]
        lines[end or len(lines) :] = [*(added if end else ["", f"[{section}]", *added]), *lines[end or len(lines) :]]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\n" in text or text != text.strip():
        raise ConfigurationError(reason=f"{name} cannot be {text!r}: no line breaks, no spaces at its ends")
    return f"{name} = {text.replace('$', '$$')}"  # oslo.config replaces $name by the option of that name


def _comment(section: str, name: str) -> str:
    help_text = next(o.help for s, opts in list_opts() if s == section for o in opts if o.name == name)
    return "".join(f"# {line}\n" for line in textwrap.wrap(help_text, 110))
