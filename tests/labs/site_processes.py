"""A site as an operator runs it: each service a process of its own, on a real broker and a real database."""

import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

from kombu import Connection

from controller.bus.topology import Topology
from controller.cli.configuration_file import new_text, write_private
from controller.cli.health import api_problem
from controller.conf import load_settings
from controller.db.models import DeadLetter
from controller.operations import dead_letters
from controller.operations.cloud import Cloud
from controller.operations.hosts import hosts
from controller.operations.instances import views
from tests.labs.servers.guarded import Guarded, ServerError, wait_until
from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import CHECKOUT, RunningCloud, clean_environment

HOSTS = 10
# Two of those of which a site may have several.
SERVICES = ("compute", "network", "scheduler-1", "scheduler-2", "controller-1", "controller-2", "metadata", "api")


class SiteProcesses:
    """The processes and what is said to them; a context manager that ends them all.

    ``options`` are further settings by (section, option); ``services`` what runs, a process each; ``all`` is a whole
    cloud, as `pileus up` starts it. ``logs`` is the folder of what they log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str,
        bus_url: str,
        cloud_id: str,
        options: Mapping[tuple[str, str], object] | None = None,
        services: Sequence[str] = SERVICES,
        logs: Path | None = None,
    ) -> None:
        self.folder = folder
        self.services = services
        self._logs = logs or folder
        self.state = folder / "state"
        self.processes: dict[str, Guarded] = {}
        self.cloud = RunningCloud(self.state, Path(sys.executable).parent)
        self._stack = ExitStack()
        chosen = {**self._options(database_url, bus_url, cloud_id), **(options or {})}
        write_private(self.state / "pileus.conf", new_text(chosen))
        self.cloud.pileus("init")
        self.settings = load_settings(self.state / "pileus.conf")
        # To look at the rows, which is quicker than a command; the site's own processes do everything else.
        self.rows = Cloud.connect(self.settings)

    def _options(self, database_url: str, bus_url: str, cloud_id: str) -> Mapping[tuple[str, str], object]:
        return {
            ("DEFAULT", "state_dir"): self.state,
            ("DEFAULT", "cloud_id"): cloud_id,
            ("DEFAULT", "host"): "host",
            ("database", "url"): database_url,
            ("bus", "url"): bus_url,
            ("bus", "retry_after_s"): 0.5,
            ("api", "listen_port"): free_ports(1)[0],
            ("controller", "open_registration"): "true",
            ("network", "driver"): "none",
            ("compute", "driver"): "simulated",
            ("compute", "simulated_hosts"): HOSTS,
            ("compute", "heartbeat_s"): 1,
            ("controller", "ring_after_s"): 1,
            ("controller", "ring_max_s"): 5,
        }

    def start(self, name: str) -> None:
        """Start one service; a name may end in a number."""
        argv = [sys.executable, "-P", "-m", "controller.cli.main", "--state", str(self.state)]
        log = self._logs / f"{name}.log"
        argv += ["serve", name.partition("-")[0], *(["--log-file", str(log)] if name == "all" else [])]
        # The code beside these tests, wherever the one that is installed comes from.
        environment = {**clean_environment(), "PYTHONPATH": str(CHECKOUT)}
        self.processes[name] = self._stack.enter_context(Guarded(argv, log=log, env=environment))

    def kill(self, name: str) -> None:
        """kill -9."""
        self.processes[name].kill()

    def pause(self, name: str) -> None:
        """SIGSTOP: it is there, holds what it holds, and does nothing."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.processes[name].send_signal(signal.SIGCONT)

    def wait_up(self) -> None:
        """Wait until the site is well and has all its hosts."""

        def well() -> bool:
            self.assert_alive()
            up = self.rows.read(lambda tx: sum(h.up for h in hosts.list_hosts(tx)))
            return up == HOSTS and api_problem(self.settings) == ""

        wait_until(well, deadline_s=180, what=self.logs)

    def wait_open(self) -> None:
        """Wait until the API answers, whatever else is away."""
        wait_until(lambda: api_problem(self.settings) == "", deadline_s=60, what=self.logs)

    def assert_alive(self) -> None:
        """No service has ended by itself."""
        for name, process in self.processes.items():
            if not process.running:
                raise ServerError(f"{name} ended by itself:\n{process.log_tail()}")

    def run(self, count: int) -> list[str]:
        """One request for so many instances; their ids."""
        image = self.cloud.ec2.describe_images()["Images"][0]["ImageId"]
        made = self.cloud.ec2.run_instances(ImageId=image, InstanceType="p1.tiny", MinCount=count, MaxCount=count)
        return [i["InstanceId"] for i in made["Instances"]]

    def wait_settled(self, *, deadline_s: float = 180) -> dict[str, str]:
        """Wait until no instance is on its way any more; each one's state."""
        seen: dict[str, str] = {}

        def settled() -> bool:
            nonlocal seen
            seen = self.rows.read(lambda tx: {v.id: str(v.state) for v in views.list_instances(tx, None)})
            return set(seen.values()) <= {"ACTIVE", "DELETED", "STOPPED", "ERROR"}

        wait_until(settled, deadline_s=deadline_s, what=lambda: f"{seen}\n{self.logs()}")
        return {i: state for i, state in seen.items() if state != "DELETED"}

    def publish(self, queue: str, body: str) -> None:
        """Put something into a queue that no service would have put there."""
        topology = Topology(self.settings)
        with Connection(self.settings.bus.url) as connection:
            declared = topology.queue(queue)
            connection.Producer().publish(
                body,
                exchange=topology.exchange,
                routing_key=queue,
                declare=[declared],
                content_type="application/json",
                content_encoding="utf-8",
            )

    def hosts(self) -> dict[str, int]:
        """Each host with the vCPUs that are promised of it."""
        return {h.id: h.vcpus_used for h in self.rows.read(hosts.list_hosts)}

    def guests(self) -> dict[tuple[str, str], tuple[str, int]]:
        """What really runs, by host and instance: each guest's power and how often it was booted."""
        path = self.state / "agent" / "simulated.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as file:
            found = file.execute("SELECT host, instance, power, boots FROM simulated_guests").fetchall()
        return {(host, instance): (power, boots) for host, instance, power, boots in found}

    def dead_letters(self) -> list[DeadLetter]:
        return list(self.rows.read(dead_letters.list_dead_letters))

    def logs(self) -> str:
        return "\n".join(f"== {name}\n{p.log_tail()[-1500:]}" for name, p in self.processes.items())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            for name in self.services:
                self.start(name)
            self.wait_up()
            image = self.folder / "image.raw"
            image.write_bytes(bytes(1024 * 1024))
            self.cloud.pileus("image", "import", str(image), "--name", "demo")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.rows.database.close()
