"""The settings of a database's server, as it tells them."""

from typing import Any

from sqlalchemy import Connection, text


def show(connection: Connection, name: str) -> str:
    """A setting of PostgreSQL, as it holds for this connection."""
    return str(connection.scalar(text(f"SHOW {name}")))


def variable(connection: Connection, name: str) -> str:
    """A global variable of MariaDB, ON and OFF as 1 and 0. Raises LookupError: this server has no such variable."""
    row: Any = connection.execute(text("SHOW GLOBAL VARIABLES LIKE :name"), {"name": name}).first()
    if row is None:
        raise LookupError(name)
    return {"ON": "1", "OFF": "0"}.get(str(row[1]), str(row[1]))
