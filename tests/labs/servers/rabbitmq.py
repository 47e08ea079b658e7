"""A private RabbitMQ."""

from collections.abc import Mapping, Sequence

from kombu import Connection

from tests.labs.servers.guarded import find_program, wait_until
from tests.labs.servers.server import Server, free_ports


class RabbitMQ(Server):
    """One broker with its own Erlang port mapper; ``address`` is one of this machine's that others may reach.

    One that is made ``beside`` another shares its port mapper and cookie, and can ``join`` its cluster.
    """

    user = "rabbitmq"
    package = "rabbitmq-server"
    # Debian's wrapper in /usr/sbin would change users and read the machine's configuration.
    _programs = ("/usr/lib/rabbitmq/bin",)

    def __init__(self, address: str = "127.0.0.1", *, beside: "RabbitMQ | None" = None) -> None:
        super().__init__()
        self._address = address
        self.port, self._distribution_port, self._mapper_port = free_ports(3)
        self._beside = beside
        if beside is not None:
            self._mapper_port = beside._mapper_port

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self._address}:{self.port}//"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes a second or two; its standard output."""
        program = find_program("rabbitmqctl", package=self.package, folders=self._programs)
        return self._run(program, "--quiet", *arguments)

    @property
    def node(self) -> str:
        """Its name in a cluster."""
        return f"pileus-{self.port}@localhost"

    def join(self, other: "RabbitMQ") -> None:
        """Give up what it has and become a member of the other one's cluster."""
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("join_cluster", other.node)
        self.ctl("start_app")

    def wait_durable(self, queue: str, *, deadline_s: float = 10) -> None:
        """Wait until a new quorum queue outlives ``kill``.

        The broker writes the list of them within half a second; one that is not in it when the broker is
        killed never works again (consuming ends with INTERNAL_ERROR after a minute).
        """

        def listed() -> bool:
            return any(queue.encode() in path.read_bytes() for path in self.folder.rglob("names.dets"))

        wait_until(listed, deadline_s=deadline_s, what=lambda: f"quorum queue {queue} on the disk")

    def _prepare(self) -> None:
        self._write("enabled_plugins", "[].\n")
        if self._beside is not None:
            self._write(".erlang.cookie", (self._beside.folder / ".erlang.cookie").read_text()).chmod(0o400)
        lines = ["log.console = true", "log.file = false", "disk_free_limit.absolute = 50MB", "loopback_users = none"]
        # By default it reads /proc/<its pid>, which is another process or none: it is in a process namespace.
        lines.append("vm_memory_calculation_strategy = allocated")
        self._write("rabbitmq.conf", "".join(f"{line}\n" for line in lines))

    def _argv(self) -> Sequence[str]:
        return [find_program("rabbitmq-server", package=self.package, folders=self._programs)]

    def _environment(self) -> Mapping[str, str]:
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": self._address,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOG": "-color",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # No spinning while idle: the machine is shared with the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+sbwt none +sbwtdcpu none +sbwtdio none {loopback}",
        }

    def _answers(self) -> None:
        with Connection(self.url, connect_timeout=2, transport_options={"max_retries": 1}) as connection:
            connection.connect()
            connection.channel().close()
