"""Files of leases: what is written reads back, and what cannot be read is named by its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain import lease_file
from controller.domain.lease_file import LeaseFormat, LeaseRow, read_leases, write_leases

CSV, JSON = LeaseFormat.CSV, LeaseFormat.JSON
LEASES = st.builds(
    LeaseRow,
    line=st.just(0),
    ip=st.ip_addresses(v=4).map(str),
    mac=st.from_regex(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", fullmatch=True),
    name=st.from_regex(r"([a-z0-9][a-z0-9-]{0,20})?", fullmatch=True),
    hosts=st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), max_size=4).map(tuple),
)


@given(st.lists(LEASES, max_size=20), st.sampled_from(LeaseFormat))
def test_what_is_written_reads_back(rows: list[LeaseRow], form: LeaseFormat) -> None:
    read = read_leases(write_leases(rows, form).encode(), form)
    assert not read.bad
    assert [(r.ip, r.mac, r.name, r.hosts) for r in read.rows] == [(r.ip, r.mac, r.name, r.hosts) for r in rows]
    assert [r.line for r in read.rows] == [n + 2 for n in range(len(rows))]


@given(st.binary(max_size=300), st.sampled_from(LeaseFormat))
def test_no_file_is_too_broken_to_be_answered(data: bytes, form: LeaseFormat) -> None:
    read = read_leases(data, form)
    assert all(1 <= b.line <= data.count(b"\n") + data.count(b"\r") + 1 for b in read.bad)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_answered(value: object) -> None:
    read_leases(json.dumps(value).encode(), JSON)
    read = read_leases(json.dumps([value]).encode(), JSON)
    assert len(read.rows) + len(read.bad) == 1


def test_columns_in_any_order_and_notation() -> None:
    text = '\ufeffHosts, MAC ,ip\r\n"h1;h2 , h3"\r\n\r\nh1;h2  h3,52:54:00:00:00:09, 10.0.0.9\r\n'
    read = read_leases(text.encode(), CSV)
    assert [str(b) for b in read.bad] == ["line 2: it has 1 columns, the header 3"]
    assert read.rows == [LeaseRow(4, "10.0.0.9", "52:54:00:00:00:09", "", ("h1", "h2", "h3"))]


def test_lines_of_json_objects_that_are_spread_over_several() -> None:
    text = '[\n\n {"ip": "1",\n  "mac": "2", "hosts": "a b"},\n\n 7,\n {"ip": 1, "mac": "2", "hosts": []}]\n'
    read = read_leases(text.encode(), JSON)
    assert read.rows == [LeaseRow(3, "1", "2", "", ("a", "b"))]
    assert [b.line for b in read.bad] == [6, 7]


@pytest.mark.parametrize(
    ("form", "data", "line", "says"),
    [
        (CSV, b"", 1, "no header"),
        (CSV, b"\n\n", 1, "no header"),
        (CSV, b"ip,mac,name\n", 1, "the first line has to be"),
        (CSV, b"ip,mac,hosts,colour\n", 1, "the first line has to be"),
        (CSV, b"ip,ip,mac,hosts\n", 1, "the first line has to be"),
        (CSV, b"10.0.0.5,52:54:00:00:00:05,a,h1\n", 1, "the first line has to be"),
        (CSV, b'ip,mac,hosts\n1,2,3\n"open,2,3\n', 3, "no CSV"),
        (CSV, b"ip,mac,hosts\n1,2,\xff\n", 2, "UTF-8"),
        (CSV, b"ip,mac,hosts\n" + b"x" * 200_000 + b",2,3\n", 2, "no CSV"),
        (JSON, b"", 1, "a list"),
        (JSON, b'{"ip": "1"}', 1, "a list"),
        (JSON, b"[", 1, "no JSON"),
        (JSON, b'[\n{"ip": "1"', 2, "no JSON"),
        (JSON, b"[" * 200_000, 1, "no JSON"),
        (JSON, b"[" + b"9" * 5000 + b"]", 1, "no JSON"),
        (JSON, b"[1 2]", 1, "an object"),
        (JSON, b'[{"ip": "1", "mac": "2", "hosts": "a"},\n]', 2, "a comma before the end"),
        (JSON, b"[]\n[]", 2, "follows the end"),
        (JSON, b'[{"ip": "1", "mac": "2", "hosts": "a", "ip": "3"}]', 1, "each once"),
        (JSON, b'[{"ip": "1", "mac": "2"}]', 1, "with the keys"),
        (JSON, b'[{"ip": "1", "mac": "2", "hosts": "a", "x": 1}]', 1, "with the keys"),
        (JSON, b'[{"ip": "1", "mac": "2", "hosts": [["a"]]}]', 1, "a list of texts"),
        (JSON, b'[{"ip": "1", "mac": "2", "hosts": {"a": 1}}]', 1, "a list of texts"),
    ],
)
def test_what_cannot_be_read(form: LeaseFormat, data: bytes, line: int, says: str) -> None:
    bad = read_leases(data, form).bad[0]
    assert bad.line == line
    assert says in bad.reason


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_file, "MAX_BYTES", 1 << 20)
    assert "larger than 1 MiB" in read_leases(b" " * ((1 << 20) + 1), CSV).bad[0].reason
    monkeypatch.setattr(lease_file, "MAX_ROWS", 2)
    assert read_leases(b"ip,mac,hosts\n" + b"1,2,3\n" * 3, CSV).bad[0].line == 4
    monkeypatch.setattr(lease_file, "MAX_PINS", 3)
    assert read_leases(b"ip,mac,hosts\n1,2,a b\n1,2,a b\n", CSV).bad[0].line == 3
