"""Promises 2 and 4 rest on UNIQUE constraints: they are there. A copy of a database may have come without them."""

from sqlalchemy import Table, UniqueConstraint, inspect

from controller.db.models import Base
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction

_TOKENS = "reservations"


def missing_constraints(tx: Transaction) -> list[Violation]:
    """Every UNIQUE of the models is one of the database's."""
    inspector = inspect(tx.session.connection())
    there: dict[str, set[tuple[str, ...]]] = {}
    for (_, table), found in inspector.get_multi_unique_constraints().items():
        there.setdefault(table, set()).update(tuple(sorted(u["column_names"])) for u in found)
    for (_, table), indexes in inspector.get_multi_indexes().items():
        unique = (i["column_names"] for i in indexes if i["unique"])
        there.setdefault(table, set()).update(tuple(sorted(filter(None, columns))) for columns in unique)
    return [
        Violation(
            2 if table.name == _TOKENS else 4,
            f"the database does not hold ({', '.join(columns)}) UNIQUE",
            f"table {table.name}",
            "was it restored without its constraints? add it: only it decides races",
        )
        for table in Base.metadata.sorted_tables
        for columns in _unique(table)
        if tuple(sorted(columns)) not in there.get(table.name, set())
    ]


def _unique(table: Table) -> list[list[str]]:
    return [[c.name for c in u.columns] for u in table.constraints if isinstance(u, UniqueConstraint)]


CHECKS = (missing_constraints,)
