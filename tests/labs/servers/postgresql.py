"""A private PostgreSQL."""

import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.labs.servers.guarded import find_program
from tests.labs.servers.server import Server, free_ports


class PostgreSQL(Server):
    """One database server.

    Without ``durable`` it never waits for the disk, which is right for most tests; what is committed
    survives ``kill`` all the same, as the operating system goes on. One that ``follows`` another is its standby.
    """

    user = "postgres"
    package = "postgresql"

    def __init__(
        self,
        *,
        durable: bool = False,
        options: Mapping[str, str] | None = None,
        follows: "PostgreSQL | None" = None,
        password: str = "",
    ) -> None:
        super().__init__()
        self._follows = follows
        self._durable = durable
        self._options = dict(options or {})
        self.password: str = follows.password if follows else password or secrets.token_hex(8)
        (self.port,) = free_ports(1)

    @property
    def url(self) -> str:
        return self._url("postgres")

    def new_database(self) -> str:
        """URL of a fresh, empty database."""
        name = f"pileus_{secrets.token_hex(6)}"
        self._execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove it, also with open connections."""
        name = sql.Identifier(make_url(url).database or "")
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def dump(self, url: str) -> Path:
        """Back a database up as an operator does; the file of the backup."""
        file = self.folder / f"{make_url(url).database}.dump"
        self._run(self._program("pg_dump"), "--format=custom", f"--file={file}", self._for_tools(url))
        return file

    def restore(self, url: str, file: Path) -> None:
        """Make a database what the backup says, as an operator does; it may not be in use meanwhile."""
        argv = ["--clean", "--if-exists", "--single-transaction", f"--dbname={self._for_tools(url)}"]
        self._run(self._program("pg_restore"), *argv, str(file))

    @staticmethod
    def _for_tools(url: str) -> str:
        return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://pileus:{self.password}@127.0.0.1:{self.port}/{database}"

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="pileus",
            password=self.password,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            connection.execute(statement)

    def _program(self, name: str) -> str:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
        return find_program(name, package=self.package, folders=[str(folder) for folder in folders])

    def _prepare(self) -> None:
        if self._follows is not None:
            source = f"host=127.0.0.1 port={self._follows.port} user=pileus password={self.password}"
            data = f"--pgdata={self.folder / 'data'}"
            self._run(
                self._program("pg_basebackup"), data, "--write-recovery-conf", "--checkpoint=fast", f"--dbname={source}"
            )
            return
        password = self._write("password", self.password)
        argv = [self._program("initdb"), f"--pgdata={self.folder / 'data'}", "--username=pileus"]
        argv += [f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self._run(*argv)

    def _argv(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "shared_buffers": "32MB",
            # In its folder: one that is killed leaves nothing in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        settings |= self._options
        argv = [self._program("postgres"), "-D", str(self.folder / "data")]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def _answers(self) -> None:
        self._execute(sql.SQL("SELECT 1"))

    def stop(self) -> None:
        """End it in order, without waiting for clients to go."""
        if self._guarded is not None:
            self._guarded.stop(number=signal.SIGINT)


def _version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0
