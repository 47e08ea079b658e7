"""PostgreSQL keeps no NUL in a text: a message that held one ended the thread that keeps the dead letters."""

from pathlib import Path

from controller.operations import dead_letters
from tests.labs.cloud import TestCloud


def test_a_dead_letter_is_kept_whatever_is_in_it(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(tmp_path, database_url)
    site.cloud.write(lambda tx: dead_letters.record_dead_letter(tx, b"\0\xff{}", "sche\0dule", "no\0 JSON"))
    (letter,) = site.cloud.read(dead_letters.list_dead_letters)
    site.close()
    assert (letter.body, letter.queue, letter.reason) == ("\ufffd\ufffd{}", "sche\ufffddule", "no\ufffd JSON")
