"""The fault matrix: what each test strikes at and what is seen then, as the table ``docs/faults.md``.

A test says its rows itself::

    @row(fault="kill -9 of the scheduler", strikes="after the claim", seen="built once, by the other scheduler")
    def test_a_killed_scheduler(site: Site) -> None: ...

    @each_row("step", {
        "before-claim": Row("kill -9 of the scheduler", "before the claim", "placed by the sweep"),
        "building": Row("kill -9 of the scheduler", "while guests boot", "no client notices"),
    })
    def test_a_killed_scheduler(site: Site, step: str) -> None: ...

``python -m tests.faults --write`` writes the table, a unit test holds it to the tests.
"""

from tests.faults.table import Row, each_row, row

__all__ = ["Row", "each_row", "row"]
