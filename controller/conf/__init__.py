"""Typed settings, read by oslo.config and passed as arguments; there is no global configuration."""

from controller.conf.load import load_settings
from controller.conf.settings import Settings

__all__ = ["Settings", "load_settings"]
