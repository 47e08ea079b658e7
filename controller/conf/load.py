"""Reads a configuration file into ``Settings``."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from oslo_config import cfg

from controller.conf.options import list_opts, section_name
from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError

FILE_NAME = "pileus.conf"
SITE_FILE = Path("/etc/pileus", FILE_NAME)
_CLOUD_ID = re.compile(r"[0-9a-f]{8}")


def default_state_dir() -> Path:
    """Where a cloud lives if no folder is named: $PILEUS_STATE, or a folder of the system's or of the user's."""
    if named := os.environ.get("PILEUS_STATE"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/pileus")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pileus"


def is_of_a_site() -> bool:
    """Whether /etc/pileus/pileus.conf describes the machine's cloud, for commands that name none."""
    return not (os.environ.get("PILEUS_STATE") or (default_state_dir() / FILE_NAME).exists()) and SITE_FILE.exists()


def load_settings(file: Path | None, overrides: Mapping[tuple[str, str], Any] | None = None) -> Settings:
    """The settings of a file, the defaults where it is silent; ``overrides`` by (section, option) win.

    Raises:
        ConfigurationError: a file that cannot be read, an option of the wrong type or out of its range.
    """
    conf = cfg.ConfigOpts()
    for section, opts in list_opts():
        conf.register_opts(opts, group=None if section == "DEFAULT" else section)
    try:
        conf(args=[], project="pileus", default_config_files=[str(file)] if file else [], default_config_dirs=[])
        for (section, name), value in (overrides or {}).items():
            conf.set_override(name, value, group=None if section == "DEFAULT" else section)
        settings = _read(conf)
    except (cfg.Error, ValueError) as error:
        raise ConfigurationError(reason=f"{file or 'defaults'}: {error}") from error
    _check(settings)
    return settings


def unknown_options(file: Path) -> list[str]:
    """What a file sets though there is no such option, as ``[network] trnuk``.

    Raises:
        ConfigurationError: a file that cannot be read.
    """
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(str(file), found).parse()
    except (cfg.Error, OSError, ValueError) as error:
        raise ConfigurationError(reason=f"{file}: {error}") from error
    known = {section: {opt.name for opt in opts} for section, opts in list_opts()}
    return [f"[{section}] {name}" for section in found for name in found[section].keys() - known.get(section, set())]


def _read(conf: cfg.ConfigOpts) -> Settings:
    hints = get_type_hints(Settings)
    sections = {}
    for f in fields(Settings):
        section = section_name(f.name)
        group = conf if section == "DEFAULT" else conf[section]
        values = {o.name: _value(group, section, o.name) for o in fields(hints[f.name])}
        sections[f.name] = hints[f.name](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    return replace(Settings(), **sections)


def _value(group: Any, section: str, name: str) -> Any:
    """An option's value; an error names its section, which oslo's own does not."""
    try:
        return group[name]
    except cfg.ConfigFileValueError as error:
        _, _, why = str(error).partition(" is not valid: ")
        raise ValueError(f"[{section}] {name} is not valid: {why or error}") from error


def _check(settings: Settings) -> None:
    """What no single option's range can say."""
    if not _CLOUD_ID.fullmatch(settings.general.cloud_id):
        raise ConfigurationError(reason="[DEFAULT] cloud_id must be 8 hexadecimal digits")
    if settings.database.answer_timeout_s <= settings.database.lock_timeout_s:
        raise ConfigurationError(reason="[database] answer_timeout_s must be greater than lock_timeout_s")
    if settings.network.vlan_first > settings.network.vlan_last:
        raise ConfigurationError(reason="[network] vlan_first must not be greater than vlan_last")
