"""Statements about many rows: INSERTs and UPDATEs, each with values of its own, and rows by their ids."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    FromClause,
    Table,
    Update,
    bindparam,
    column,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
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


class among(FunctionElement[bool]):  # noqa: N801 - it reads as a function
    """``column`` is one of ``values``: what IN says, for ids by the thousand.

    PostgreSQL is given one array instead of a thousand parameters, which takes half of the time.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: InstrumentedAttribute[Any] | ColumnElement[Any], values: Iterable[Any]) -> None:
        super().__init__(column, bindparam(None, list(values), type_=column.type, expanding=True))


@compiles(among)
def _in_list(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    of, values = element.clauses
    return compiler.process(of.in_(values), **kw)


@compiles(among, "postgresql")
def _in_array(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    of, values = element.clauses
    assert isinstance(values, BindParameter)
    # By the key a cached statement finds the values that it is run with.
    array = BindParameter(values.key, values.value, type_=ARRAY(values.type))
    return f"{compiler.process(of, **kw)} = ANY ({compiler.process(array, **kw)})"


def analyze(session: Session, *tables: FromClause) -> None:
    """Have PostgreSQL look at these tables again, after they have changed much; the other engines need no such help.

    Until autovacuum comes by, a minute later or more, its plans are for the table as it was. It takes the few rows that
    it knows to be free and compares each with each of a thousand ids: for 100,000 leases that were just imported 4 s.
    """
    if session.get_bind().dialect.name == "postgresql":
        names = ", ".join(session.connection().dialect.identifier_preparer.format_table(t) for t in tables)
        session.execute(text(f"ANALYZE {names}"))


def _each_row(types: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> FromClause:
    """The rows as PostgreSQL sees them, from an array for each column."""
    arrays = [bindparam(name, [row[name] for row in rows], type_=ARRAY(type_)) for name, type_ in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()))
    return given.render_derived(name="each_row")
