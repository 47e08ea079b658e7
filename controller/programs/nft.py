"""nft(8): the tables of a cloud are written as whole scripts and read as text."""

import json
from collections.abc import Mapping
from typing import Any

from controller.domain.errors import CommandFailed
from controller.programs.run import run

_TIMEOUT_S = 60
# In a network namespace of its own, so that the machine's tables stay as they are.
_AS_WRITTEN = 'nft -f -; exec nft -s list table inet "$1"'


def apply(script: str) -> None:
    """Carry out a script, all of it or nothing. Raises CommandFailed."""
    run(["nft", "-f", "-"], stdin=script, timeout_s=_TIMEOUT_S)


def delete_table(table: str) -> None:
    """Delete a table of the family inet; one that is absent is fine. Raises CommandFailed."""
    apply(f"add table inet {table}\ndelete table inet {table}\n")


def list_table(table: str) -> str:
    """The table of the family inet as nft writes it, without counters; empty if there is none."""
    try:
        return run(["nft", "-s", "list", "table", "inet", table], timeout_s=_TIMEOUT_S)
    except CommandFailed:
        return ""


def as_listed(script: str, table: str) -> str:
    """How ``list_table`` would show the table that the script makes; the machine's tables stay as they are.

    Raises:
        CommandFailed
    """
    argv = ["unshare", "--net", "sh", "-ec", _AS_WRITTEN, "sh", table]
    return run(argv, stdin=script, timeout_s=_TIMEOUT_S)


def list_chains() -> list[Mapping[str, Any]]:
    """The chains of all tables, as libnftables-json(5) describes them.

    Raises:
        CommandFailed: the user may not read them. ValueError: nft wrote something else than JSON.
    """
    document = json.loads(run(["nft", "-j", "list", "chains"], timeout_s=5))
    return [entry["chain"] for entry in document["nftables"] if "chain" in entry]
