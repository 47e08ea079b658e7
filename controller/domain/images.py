"""What an image can be used for."""

from controller.domain.open_enum import OpenEnum


class ImageState(OpenEnum):
    """Whether an image can be booted."""

    AVAILABLE = "AVAILABLE"
    DEREGISTERED = "DEREGISTERED"
