"""Messages and tables between 0.1 and this release, in both directions: what the one wrote the other reads."""

import ast
import configparser
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect

from controller.domain import guests
from controller.domain.errors import InvalidParameter
from controller.domain.messages import MESSAGES
from controller.domain.release import RELEASE, SPOKEN, oldest_that_speaks, parts, speaks
from controller.domain.states import Event
from controller.domain.wire import VERSION, decode, encode
from controller.operations.database import schema
from tests.labs.cloud import make_settings
from tests.labs.message_examples import EXAMPLES
from tests.releases.old_release import answer_of, unpacked

ROOT = Path(__file__).parents[4]
GOLDEN = Path(__file__).parents[2] / "golden" / "releases" / "0.1"
OLD = {f.stem: json.loads(f.read_text()) for f in sorted((GOLDEN / "messages").iterdir())}

# Reads messages as 0.1 does, and writes what it made of each: the message, or why it refuses it.
READ = """
import json, sys
from importlib.metadata import version
from controller.domain.errors import PoisonMessage
from controller.domain.wire import decode, encode
read = {}
for name, document in json.load(sys.stdin).items():
    try:
        read[name] = json.loads(encode(decode(json.dumps(document))))
    except PoisonMessage as error:
        read[name] = str(error)
print(json.dumps({"release": version("pileus"), "read": read}))
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("0.1.0", tmp_path_factory.mktemp("releases"))


def test_the_release_is_written_in_one_place() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    module, _, name = setup["metadata"]["version"].removeprefix("attr: ").rpartition(".")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    values = {
        t.id: n.value for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    }
    value = values[name]
    assert isinstance(value, ast.Constant)
    assert value.value == RELEASE


def test_releases_are_compared_by_their_numbers() -> None:
    assert parts("0.10.0") > parts("0.9.9") > parts("0.2.0.dev1") == parts("0.2.0")
    assert (speaks("0.0.1"), speaks("0.1.7"), speaks(RELEASE), speaks("99.0")) == (1, 1, VERSION, max(SPOKEN.values()))
    assert [oldest_that_speaks(v) for v in (1, 2)] == ["0.1.0", "0.2.0"]
    with pytest.raises(InvalidParameter):
        parts("newest")


@pytest.mark.parametrize("kind", sorted(OLD))
def test_what_01_wrote_is_read(kind: str) -> None:
    """Every field of it; what has been added since has its default."""
    now = json.loads(encode(decode(json.dumps(OLD[kind]))))
    assert _restricted(now, OLD[kind]) == {**OLD[kind], "version": VERSION}


def test_01_reads_what_is_written_now(old: Path) -> None:
    """Every field that it knows; kinds that it does not know are marked, so that none is sent to it."""
    ours = {kind: json.loads(encode(message)) for kind, message in EXAMPLES.items()}
    answer = answer_of(old, READ, ours)
    assert answer["release"] == "0.1.0"
    read = answer["read"]
    refused = {kind for kind, found in read.items() if isinstance(found, str)}
    assert refused == {kind for kind, cls in MESSAGES.items() if cls.SINCE > 1}
    for kind in ours.keys() - refused:
        assert read[kind] == {**_restricted(ours[kind], OLD[kind]), "version": 1}


def test_01_reads_its_own(old: Path) -> None:
    """The program that reads for it is right."""
    assert answer_of(old, READ, OLD)["read"] == OLD


def test_no_word_is_sent_that_01_would_refuse(old: Path) -> None:
    """So no enum of a message to it has a word that it lacks: with the first such word, senders must heed it."""
    words = {"GuestsChanged": "event", "HostReported": "power", "ReconcileGuests": "desired"}
    for kind, field in words.items():
        members = _members(field.capitalize())
        document = json.loads(encode(EXAMPLES[kind]))
        questions = {word: _with(document, field, word) for word in members}
        answers = answer_of(old, READ, questions)["read"]
        assert [word for word, found in answers.items() if isinstance(found, str)] == []


def test_every_table_of_01_is_as_it_was(tmp_path: Path) -> None:
    """Migrations add: no column, constraint or index of 0.1 has gone or changed, and what was added has a default."""
    settings = make_settings(tmp_path)
    schema.upgrade(settings)
    engine = create_engine(settings.database_url)
    now, was = _shape(engine), json.loads((GOLDEN / "schema.json").read_text())
    engine.dispose()
    for table, old_shape in was.items():
        columns = now[table]["columns"]
        assert {name: columns[name] for name in old_shape["columns"]} == old_shape["columns"]
        for name in columns.keys() - old_shape["columns"].keys():
            _, nullable, default = columns[name]
            assert nullable or default is not None, f"0.1 could not write {table}: it does not know {name}"
        assert now[table]["unique"] == old_shape["unique"], f"{table}: 0.1 does not know what is to be unique"
        assert now[table]["checks"] == old_shape["checks"]


def test_the_shape_of_01_is_the_one_that_it_makes(tmp_path: Path, old: Path) -> None:
    program = f"""
import json
from controller.conf import load_settings
from controller.operations import schema
settings = load_settings(None, {{("DEFAULT", "state_dir"): {str(tmp_path)!r}, ("DEFAULT", "cloud_id"): "c10dc10d"}})
schema.upgrade(settings)
print(json.dumps({{"url": settings.database_url, "revision": schema.current(settings)}}))
"""
    made = answer_of(old, program)
    engine = create_engine(made["url"])
    assert _shape(engine) == json.loads((GOLDEN / "schema.json").read_text())
    assert made["revision"] == "0004"
    engine.dispose()


def _shape(engine: Engine) -> dict[str, Any]:
    """Tables by name: each column's type, whether it may be NULL and its default; what is unique, what is checked."""
    found = inspect(engine)
    return {
        table: {
            "columns": {c["name"]: [str(c["type"]), c["nullable"], c["default"]] for c in found.get_columns(table)},
            "unique": sorted(u["column_names"] for u in found.get_unique_constraints(table)),
            "checks": sorted(c["sqltext"] for c in found.get_check_constraints(table)),
        }
        for table in sorted(found.get_table_names())
        if table != "alembic_version"
    }


def _restricted(new: Any, old: Any) -> Any:
    """``new`` without the fields that the objects of ``old`` do not have."""
    if isinstance(old, dict):
        return {k: _restricted(new[k], v) for k, v in old.items()}
    if isinstance(old, list):
        return [_restricted(n, o) for n, o in zip(new, old, strict=True)]
    return new


def _members(name: str) -> list[str]:
    return [str(member) for member in (Event if name == "Event" else getattr(guests, name))]


def _with(value: Any, field: str, word: str) -> Any:
    if isinstance(value, dict):
        return {k: word if k == field else _with(v, field, word) for k, v in value.items()}
    return [_with(v, field, word) for v in value] if isinstance(value, list) else value
