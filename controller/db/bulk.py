"""UPDATEs of many rows, each with values of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Update, bindparam, column, func
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
    arrays = [bindparam(name, [row[name] for row in rows], type_=ARRAY(type_)) for name, type_ in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()))
    each = given.render_derived(name="each_row")
    return session.connection().execute(make(lambda name: each.c[name])).rowcount
