"""A private MariaDB."""

import secrets
from collections.abc import Mapping, Sequence

import pymysql
from sqlalchemy.engine import make_url

from tests.labs.servers.guarded import find_program
from tests.labs.servers.server import Server, free_ports


class MariaDB(Server):
    """One database server; ``durable`` as in PostgreSQL."""

    user = "mysql"
    package = "mariadb-server"

    def __init__(self, *, durable: bool = False, options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._durable = durable
        self._options = {"max-connections": "200", **(options or {})}
        self._password = secrets.token_hex(8)
        (self.port,) = free_ports(1)

    @property
    def url(self) -> str:
        return self._url("mysql")

    def new_database(self) -> str:
        """URL of a fresh, empty database."""
        name = f"pileus_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove it, also with open connections."""
        name = make_url(url).database or ""
        assert name.isidentifier(), name
        self._execute(f"DROP DATABASE IF EXISTS {name}")

    def _url(self, database: str) -> str:
        return f"mysql+pymysql://pileus:{self._password}@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def _execute(self, statement: str) -> None:
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user="pileus", password=self._password, connect_timeout=2
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def _prepare(self) -> None:
        program = find_program("mariadb-install-db", package=self.package)
        argv = [program, "--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db"]
        argv += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={self.user}"]
        self._run(*argv)
        # Read at each start.
        self._write(
            "accounts.sql",
            f"CREATE OR REPLACE USER pileus@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            "GRANT ALL ON *.* TO pileus@'127.0.0.1';\n",
        )

    def _argv(self) -> Sequence[str]:
        argv = [find_program("mariadbd", package=self.package), "--no-defaults"]
        argv += [f"--datadir={self.folder / 'data'}", f"--socket={self.folder / 'socket'}"]
        argv += [f"--pid-file={self.folder / 'pid'}", f"--init-file={self.folder / 'accounts.sql'}"]
        argv += ["--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"]
        argv += ["--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M"]
        if not self._durable:
            argv += ["--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync"]
        return argv + [f"--{name}={value}" for name, value in self._options.items()]

    def _answers(self) -> None:
        self._execute("SELECT 1")
