"""The published fault matrix is what the tests say of themselves."""

from types import ModuleType

from tests.faults import Row, each_row, row
from tests.faults.table import ATTRIBUTE, DOCUMENT, document, family, functions_of, modules


def test_the_document_is_what_the_tests_say() -> None:
    assert DOCUMENT.read_text() == document(), "write it anew: python -m tests.faults --write"


def test_every_test_of_the_matrix_says_its_row() -> None:
    silent = [
        f"{module.__name__}.{name}"
        for module in modules()
        if "faults" in module.__name__ and module.__name__ != __name__
        for name, test in functions_of(module).items()
        if not getattr(test, ATTRIBUTE, [])
    ]
    assert silent == []


def test_rows_are_shown_in_the_order_of_their_lines() -> None:
    @row(fault="first", strikes="a", seen="b")
    @each_row("case", {"x": Row("second", "a", "b"), "y": Row("third", "a", "b")})
    def struck(case: str) -> str:
        return case

    assert [(case, said.fault) for case, said in getattr(struck, ATTRIBUTE)] == [
        ("", "first"),
        ("x", "second"),
        ("y", "third"),
    ]


def test_a_row_is_run_on_each_of_its_databases() -> None:
    module = ModuleType("tests.module")

    @each_row(
        "case", {"x": Row("first", "a", "b", ("postgresql", "mariadb")), "y": Row("second", "a", "b", ("mariadb",))}
    )
    def test_struck(case: str) -> str:
        return case

    test_struck.__module__ = module.__name__
    module.test_struck = test_struck  # type: ignore[attr-defined]
    (mark,) = test_struck.pytestmark  # type: ignore[attr-defined]
    assert mark.args == (["case", "engine"], [("x", "postgresql"), ("x", "mariadb"), ("y", "mariadb")])
    assert mark.kwargs["ids"] == ["x-postgresql", "x-mariadb", "y-mariadb"]
    assert [test for _, test in family(module).rows] == [
        "tests/module.py::test_struck[x-{postgresql,mariadb}]",
        "tests/module.py::test_struck[y-mariadb]",
    ]
