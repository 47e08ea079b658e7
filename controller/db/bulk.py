"""INSERTs and UPDATEs of many rows, each with values of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, Update, bindparam, column, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

# Makes the statement out of what stands for a row's value.
Make = Callable[[Callable[[str], ColumnElement[Any]]], Update]


def update_rows(session: Session, make: Make, types: Mapping[str, TypeEngine[Any]], rows: Sequence[Any]) -> int:
    """Run an UPDATE for each of ``rows``, mappings with the keys of ``types``; answers how many it has changed.

    PostgreSQL is given all of them as arrays, in one statement, and locks the rows in an order of its own: where two
    may meet, they are to be locked before. The others get a statement for each row, in order.
    """
    if not rows:
        return 0
    if session.get_bind().dialect.name != "postgresql":
        return session.connection().execute(make(lambda name: bindparam(name, type_=types[name])), rows).rowcount
    each = _each_row(types, rows)
    return session.connection().execute(make(lambda name: each.c[name])).rowcount


def insert_rows(session: Session, table: FromClause, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that have the same keys. What is not given has the table's default.

    PostgreSQL is given one statement: an array for each column in which the rows differ, and once what all have alike.
    For instances of one request that is a tenth of the work of naming each value, there and here, and the transaction
    is as much shorter.
    """
    assert isinstance(table, Table)
    differ = [name for name in rows[0] if any(row[name] != rows[0][name] for row in rows)] if rows else []
    if not differ or session.get_bind().dialect.name != "postgresql":
        if rows:
            session.execute(insert(table), rows)
        return
    types = {name: table.c[name].type for name in rows[0]}
    each = _each_row({name: types[name] for name in differ}, rows)
    values = [each.c[n] if n in differ else bindparam(n, rows[0][n], type_=t).label(n) for n, t in types.items()]
    session.connection().execute(insert(table).from_select(list(types), select(*values)))


def _each_row(types: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> FromClause:
    """The rows as PostgreSQL sees them, from an array for each column."""
    arrays = [bindparam(name, [row[name] for row in rows], type_=ARRAY(type_)) for name, type_ in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()))
    return given.render_derived(name="each_row")
