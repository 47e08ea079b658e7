"""A guest's power button, pressed without waiting for the guest."""

import threading
from collections.abc import Callable

import structlog

from controller.domain.errors import DriverError

log = structlog.get_logger(__name__)


class PowerButton:
    """Pressed by a thread of its own: libvirt waits for the answer of a QEMU that hangs until that one ends."""

    def __init__(self, press: Callable[[], None]) -> None:
        self._press = press
        self._thread: threading.Thread | None = None

    def press(self) -> None:
        """Press it, unless it is still pressed; what goes wrong is logged."""
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name="power-button", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("no thread to press the power button", reason=str(error))
        else:
            self._thread = thread

    def let_go(self, timeout_s: float) -> bool:
        """Wait until it is not pressed any more; False when it still is."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._press()
        except DriverError as error:
            log.info("pressing the power button failed", reason=str(error))
