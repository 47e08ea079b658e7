"""The metadata service; it runs on the network node, behind the redirect of the guests' bridges."""

import structlog

from api.metadata.app import create_app
from api.metadata.listener import CONNECTIONS, OWN_FILES, THREADS, Listener
from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.needs import Needs
from controller.operations.cloud import Cloud

log = structlog.get_logger(__name__)


class MetadataService:
    """Serves guests their metadata. With ``[network] driver = none`` there are no guests, and it does nothing."""

    name = "metadata"

    @staticmethod
    def needs(settings: Settings) -> Needs:
        """Nothing without networks."""
        if settings.network.driver == "none":
            return Needs()
        return Needs(database_threads=THREADS, files=CONNECTIONS + OWN_FILES)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._listener: Listener | None = None

    def start(self) -> None:
        """Listen on the metadata port.

        Raises:
            ConfigurationError: the port is taken.
        """
        conf = self._cloud.settings.network
        if conf.driver == "none":
            return
        try:
            self._listener = Listener(create_app(self._cloud), conf.metadata_port)
        except OSError as error:
            raise ConfigurationError(
                reason=f"[network] metadata_port {conf.metadata_port} cannot be listened on: {error.strerror or error}"
            ) from error
        self._listener.start()
        log.info("metadata service listens", port=conf.metadata_port)

    def stop(self) -> None:
        """Close the port; guests that ask meanwhile ask again."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    def problem(self) -> str:
        """Why no guest is answered."""
        return self._listener.problem() if self._listener else ""

    def destroy(self) -> None:
        """Nothing: this service leaves nothing on the host."""
