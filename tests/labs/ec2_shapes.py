"""Hypothesis strategies for values of botocore shapes."""

import datetime
from typing import Any

from hypothesis import strategies as st

from api.ec2.protocol.model import Shape

MAX_DEPTH = 4
XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r", exclude_characters="\ufffe\uffff"),
    max_size=12,
)
MOMENTS = st.datetimes(min_value=datetime.datetime(1971, 1, 1), max_value=datetime.datetime(2200, 1, 1)).map(
    lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000, tzinfo=datetime.UTC)
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(-1e9, 1e9),
    "double": st.floats(-1e9, 1e9),
    "timestamp": MOMENTS,
}


def values(shape: Shape, *, empty: bool, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a shape; with ``empty`` also those that a request cannot tell from absent ones."""
    least = 0 if empty else 1
    if shape.type_name == "structure":
        return structures(shape, empty=empty, depth=depth)
    if shape.type_name == "list":
        return st.lists(values(shape.member, empty=empty, depth=depth + 1), min_size=least, max_size=3)
    if shape.type_name == "string":
        return XML_TEXT.filter(lambda text: empty or text != "")
    if shape.type_name == "blob":
        return st.binary(min_size=least, max_size=12)
    return SCALARS[shape.type_name]


def structures(shape: Shape, *, empty: bool, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    def deep(member: Shape) -> bool:
        return member.type_name in ("structure", "list")

    optional = {
        name: values(member, empty=empty, depth=depth + 1)
        for name, member in shape.members.items()
        if name not in shape.required_members and not (deep(member) and depth >= MAX_DEPTH)
    }
    required = {name: values(shape.members[name], empty=empty, depth=depth + 1) for name in shape.required_members}
    made = st.fixed_dictionaries(required, optional=optional)
    return made if empty or depth == 0 else made.filter(bool)
