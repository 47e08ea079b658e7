"""What an operator's own weigher imports, and the names of the built-in ones: this module stays.

The weighers themselves are ``scheduler.placement.weighers``.
"""

from scheduler.placement.weighers import Weigher, image_present, load

__all__ = ["Weigher", "image_present", "load"]
