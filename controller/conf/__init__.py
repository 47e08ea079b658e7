"""Typed settings, read by oslo.config and passed on; nobody reads a global."""

from controller.conf.load import load_settings
from controller.conf.settings import Settings

__all__ = ["Settings", "load_settings"]
