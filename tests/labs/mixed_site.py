"""A site whose services and agents are of two releases, each exchanged for the other's while the site is in use."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from sqlalchemy import create_engine, text

from controller.cli.configuration_file import new_text, write_private
from controller.cli.health import api_problem
from controller.conf import load_settings
from tests.labs.servers.guarded import Guarded, ServerError, wait_until
from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import CHECKOUT, RunningCloud, clean_environment
from tests.releases.old_release import unpacked

OLD, NEW = "0.1.0", "current"
SERVICES = ("controller", "scheduler", "network", "api")
# Processes of agents, each with hosts, a journal and guests of its own.
AGENTS = ("node-a", "node-b")
HOSTS_EACH = 4


class MixedSite:
    """The processes of a site, each of either release; a context manager that ends them all.

    A service may run twice at once, once of each release. Rows are read by plain SQL, whatever the schema.
    """

    def __init__(self, folder: Path, *, database_url: str, bus_url: str, cloud_id: str) -> None:
        self.state = folder / "state"
        self.processes: dict[tuple[str, str], Guarded] = {}
        self.cloud = RunningCloud(self.state, Path(sys.executable).parent)
        self._folder = folder
        self._code = {OLD: unpacked(OLD, folder), NEW: CHECKOUT}
        self._stack = ExitStack()
        self._options: dict[tuple[str, str], object] = {
            ("DEFAULT", "state_dir"): self.state,
            ("DEFAULT", "cloud_id"): cloud_id,
            ("DEFAULT", "host"): "control",
            ("database", "url"): database_url,
            ("bus", "url"): bus_url,
            ("bus", "retry_after_s"): 0.5,
            ("api", "listen_port"): free_ports(1)[0],
            ("controller", "open_registration"): "true",
            ("network", "driver"): "none",
            ("compute", "driver"): "simulated",
            ("compute", "simulated_hosts"): HOSTS_EACH,
            ("compute", "heartbeat_s"): 1,
            ("controller", "ring_after_s"): 1,
            ("controller", "ring_max_s"): 5,
        }
        write_private(self.state / "pileus.conf", new_text(self._options))
        for name in AGENTS:
            own = {("DEFAULT", "state_dir"): folder / name, ("DEFAULT", "host"): name}
            write_private(folder / name / "pileus.conf", new_text({**self._options, **own}))
        self.settings = load_settings(self.state / "pileus.conf")
        self._engine = create_engine(self.settings.database_url)

    def pileus(self, release: str, *arguments: str) -> str:
        """The operator's command of a release."""
        argv = [*self._argv(self.state), *arguments]
        done = subprocess.run(
            argv, env=self._environment(release), capture_output=True, text=True, timeout=180, check=False
        )
        if done.returncode:
            raise AssertionError(f"{arguments} of {release}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name: str, release: str) -> None:
        """Start a service, or an agents' process, of a release."""
        state, service = (self._folder / name, "compute") if name in AGENTS else (self.state, name)
        log = self._folder / f"{name}-{release}.log"
        before = len(log.read_bytes()) if log.exists() else 0
        process = Guarded([*self._argv(state), "serve", service], log=log, env=self._environment(release))
        self.processes[name, release] = self._stack.enter_context(process)
        told = re.compile(rb"service started.* service=%b\b" % service.encode())
        process.wait_until(
            lambda: bool(told.search(log.read_bytes()[before:])), deadline_s=120, what=f"{name} does not start"
        )

    def stop(self, name: str, release: str) -> None:
        """Stop it as its unit does."""
        self.processes.pop((name, release)).stop(timeout_s=60)

    def exchange(self, name: str, old: str, new: str, *, both: Callable[[], None]) -> None:
        """One for the other: a service side by side at first, until ``both`` returns; an agent, and what has the one
        port, after it."""
        if name in AGENTS or name == "api":
            self.stop(name, old)
            self.start(name, new)
        else:
            self.start(name, new)
            self.wait_working()
            both()
            self.stop(name, old)
        self.wait_working()

    def wait_working(self) -> None:
        """Wait until the API answers and every host has been heard of since now."""
        since = self.sql("SELECT coalesce(max(last_seen_at), '2000-01-01') FROM hosts")[0][0]

        def heard() -> bool:
            self.assert_alive()
            where = "SELECT count(*) FROM hosts WHERE up AND last_seen_at > :since"
            count = self.sql(where, since=since)[0][0]
            return api_problem(self.settings) == "" and count == HOSTS_EACH * len(AGENTS)

        wait_until(heard, deadline_s=240, what=self.logs)

    def assert_alive(self) -> None:
        """No process has ended by itself."""
        for (name, release), process in list(self.processes.items()):
            if not process.running:
                raise ServerError(f"{name} of {release} ended by itself:\n{process.log_tail()}")

    def sql(self, query: str, **values: object) -> list[Any]:
        """Rows, as they are."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def states(self) -> dict[str, str]:
        """Each instance's state."""
        return dict(self.sql("SELECT id, state FROM instances"))

    def boots(self) -> Mapping[str, int]:
        """How often each guest that is there was booted, wherever it is."""
        found: Counter[str] = Counter()
        for name in AGENTS:
            path = self._folder / name / "agent" / "simulated.db"
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as file:
                found.update(dict(file.execute("SELECT instance, boots FROM simulated_guests")))
        return found

    def services(self) -> list[dict[str, Any]]:
        """What `pileus service list` says."""
        found: list[dict[str, Any]] = json.loads(self.pileus(NEW, "--output", "json", "service", "list"))
        return found

    def logs(self) -> str:
        return "\n".join(f"== {name} {r}\n{p.log_tail()[-1500:]}" for (name, r), p in self.processes.items())

    def _argv(self, state: Path) -> list[str]:
        return [sys.executable, "-P", "-m", "controller.cli.main", "--state", str(state)]

    def _environment(self, release: str) -> dict[str, str]:
        return {**clean_environment(), "PYTHONPATH": os.fspath(self._code[release])}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self.pileus(OLD, "init")
            for name in (*AGENTS, *SERVICES):
                self.start(name, OLD)
            self.wait_hosts()
            image = self._folder / "image.raw"
            image.write_bytes(bytes(1024 * 1024))
            self.pileus(OLD, "image", "import", str(image), "--name", "demo")
            self._stack = stack.pop_all()
        return self

    def wait_hosts(self) -> None:
        """Wait until all hosts have registered and the API answers."""

        def there() -> bool:
            self.assert_alive()
            up = self.sql("SELECT count(*) FROM hosts WHERE up")[0][0]
            return up == HOSTS_EACH * len(AGENTS) and api_problem(self.settings) == ""

        wait_until(there, deadline_s=240, what=self.logs)

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._engine.dispose()
