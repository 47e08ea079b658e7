import re
import time
from dataclasses import dataclass, field
from fnmatch import translate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ec2.protocol.filters import Predicate, compile_filters, matcher
from controller.domain.errors import InvalidParameter, MissingParameter


@dataclass(frozen=True)
class Box:
    name: str
    groups: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


KNOWN = {"name": lambda box: (box.name,), "group": lambda box: box.groups}


def passes(*filters: tuple[str, list[str]]) -> Predicate[Box]:
    given = [{"Name": name, "Values": values} for name, values in filters]
    return compile_filters(given, KNOWN, lambda box: box.tags)


def test_no_filter_lets_everything_pass() -> None:
    assert compile_filters([], KNOWN)(Box("a"))


def test_and_between_names_or_between_values() -> None:
    test = passes(("name", ["a", "b*"]), ("group", ["x"]))
    assert test(Box("a", ("y", "x")))
    assert test(Box("bc", ("x",)))
    assert not test(Box("c", ("x",)))
    assert not test(Box("a", ("y",)))
    assert not test(Box("a"))


def test_tags() -> None:
    box = Box("a", tags={"Name": "web", "empty": "", "a:b": "c"})
    for good in (
        ("tag:Name", ["w?b"]), ("tag:empty", [""]), ("tag:a:b", ["c"]), ("tag-key", ["Nam*"]), ("tag-value", ["web"])
    ):  # fmt: skip
        assert passes(good)(box), good
    for bad in (("tag:name", ["web"]), ("tag:Name", ["WEB"]), ("tag:gone", ["*"]), ("tag-key", ["web"])):
        assert not passes(bad)(box), bad


@pytest.mark.parametrize("name", ["nom", "tag:", "tag", "Name", "tag-keys"])
def test_an_unknown_filter(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"The filter '{name}' is invalid"):
        passes((name, ["x"]))


def test_without_tags_there_are_no_tag_filters() -> None:
    with pytest.raises(InvalidParameter, match="The filter 'tag:a' is invalid"):
        compile_filters([{"Name": "tag:a", "Values": ["b"]}], KNOWN)


def test_incomplete_filters() -> None:
    with pytest.raises(MissingParameter, match=r"Filter\.2\.Name"):
        compile_filters([{"Name": "name", "Values": ["a"]}, {"Values": ["b"]}], KNOWN)
    for values in ([], ["x"] * 201):
        with pytest.raises(InvalidParameter):
            passes(("name", values))


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"a\*b", "a*b", True), (r"a\*b", "axb", False), (r"\?", "?", True), (r"\?", "a", False),
        (r"a\\b", r"a\b", True), ("a\\", "a\\", True), (r"\a", "a", True), (r"\\*", r"\x", True),
        ("a*b*c", "a b b c", True), ("*", "", True), ("?", "", False), ("a.c", "abc", False), ("*\n*", "a\nb", True),
        ("abc", "abcd", False), ("a*", "xa", False), ("*a", "ab", False), ("a*\n", "a", False), ("a", "a\n", False),
        ("*ab*ba*", "aba", False), ("*ab*ba*", "abba", True), ("a**c", "ac", True), ("*?", "a", True),
        ("*a?", "aab", True),
    ],
)  # fmt: skip
def test_wildcards(pattern: str, text: str, expected: bool) -> None:
    assert matcher([pattern])(text) is expected


@given(st.text("ab*?.\n", max_size=10), st.text("ab*?.\n", max_size=14))
def test_the_same_as_the_standard_librarys(pattern: str, text: str) -> None:
    assert matcher([pattern])(text) == (re.match(translate(pattern), text) is not None)


@given(st.text())
def test_an_escaped_text_matches_itself_only(text: str) -> None:
    escaped = re.sub(r"([\\*?])", r"\\\1", text)
    assert matcher([escaped])(text)
    assert not matcher([escaped])(text + "x")


def test_many_stars_cost_no_more_than_a_scan() -> None:
    began = time.process_time()
    assert not matcher(["*a" * 100 + "b"])("a" * 5000)
    assert time.process_time() - began < 0.5
