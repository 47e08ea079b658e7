"""The settings as oslo.config options, for reading a file and for oslo-config-generator."""

from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from oslo_config import cfg

from controller.conf.settings import Settings


def section_name(field_name: str) -> str:
    """The section of the file; what is general stands in [DEFAULT]."""
    return "DEFAULT" if field_name == "general" else field_name


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Every section with its options: the entry point of oslo-config-generator."""
    hints = get_type_hints(Settings)
    return [
        (section_name(f.name), [_opt(o, get_type_hints(hints[f.name])[o.name]) for o in fields(hints[f.name])])
        for f in fields(Settings)
    ]


def _opt(field: "Field[Any]", hint: Any) -> cfg.Opt:
    meta = field.metadata
    assert field.default is not MISSING or field.default_factory is not MISSING
    common = {"default": meta["default"], "help": meta["help"], "secret": meta["secret"]}
    if hint is bool:
        return cfg.BoolOpt(field.name, **common)
    if hint is int:
        return cfg.IntOpt(field.name, min=meta["min"], max=meta["max"], **common)
    if hint is float:
        return cfg.FloatOpt(field.name, min=meta["min"], max=meta["max"], **common)
    if hint == tuple[str, ...]:
        return cfg.ListOpt(field.name, **common)
    return cfg.StrOpt(field.name, choices=meta["choices"], **common)
