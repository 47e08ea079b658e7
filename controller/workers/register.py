"""The rows by which a process announces its services: that they run, their release, what messages they can read."""

import os
import signal
import socket
import uuid
from collections.abc import Callable, Sequence

import structlog

from controller.bus.unread import UNREAD
from controller.domain.errors import ConfigurationError, Unavailable
from controller.domain.wire import VERSION
from controller.operations.cloud import Cloud
from controller.operations.database import schema
from controller.operations.services import services
from controller.operations.services.services import RENEW_EVERY_S, Presence
from controller.outages import OUTAGES
from controller.workers.periodic import Periodic

log = structlog.get_logger(__name__)


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class ServiceRegister:
    """Keeps the rows of one process's services, from before they start until after they have stopped.

    No service starts on tables that this release cannot work with, and if the tables become such while services
    run, the process ends (``end``); ``refused`` says why.
    """

    def __init__(self, cloud: Cloud, names: Sequence[str], end: Callable[[], None] = _end_process) -> None:
        machine = cloud.settings.general.host or socket.gethostname()
        self.name = "register"
        self.refused = ""
        self._cloud = cloud
        self._end = end
        self._services = [Presence(uuid.uuid4().hex, name, machine[:255], os.getpid()) for name in names]
        self._periodic = Periodic("register", RENEW_EVERY_S, self.renew)

    def start(self) -> None:
        """Check the tables and write the rows; a database that is away is waited for in the background.

        Raises:
            ConfigurationError: this release cannot run on the tables.
        """
        try:
            self._check()
            self._write()
        except Unavailable as error:
            OUTAGES.warn(log, "not registered yet", error)
        self._periodic.start()

    def renew(self) -> None:
        """One round: whether the tables are still right, and that these services run."""
        try:
            self._check()
        except ConfigurationError as error:
            log.error("the services end", reason=str(error))  # noqa: TRY400 - it says what to do
            self.refused = str(error)
            self._end()
            return
        self._write()

    def stop(self) -> None:
        """Take the rows away."""
        self._periodic.stop()
        try:
            self._cloud.write(lambda tx: services.leave(tx, self._services))
        except Unavailable as error:
            log.warning("not signed off: the rows age", reason=str(error))

    def problem(self) -> str:
        """Why the rows are not renewed."""
        return self.refused or self._periodic.problem()

    def destroy(self) -> None:
        """The rows go with the database."""

    def _check(self) -> None:
        if reason := self._cloud.read(schema.problem):
            raise ConfigurationError(reason=reason)

    def _write(self) -> None:
        self._cloud.write(lambda tx: services.renew(tx, self._services, version=VERSION, unread=UNREAD.summary()))
