"""The published placements: each file is a cluster, a request and a policy, and what comes of them.

`PILEUS_GOLDEN=write pytest tests/unit/scheduler/placement/test_golden_placements.py` writes what comes of them now.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from controller.conf.settings import Scheduler
from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.place import place
from scheduler.placement.policy import policy_for
from scheduler.placement.request import Request

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "tests/unit/golden/placements"
FILES = sorted(FOLDER.glob("*.json"))
HOST = {
    "up": True, "mode": "READY", "hypervisor": "kvm", "architecture": "x86_64", "zone": "z1",
    "vcpus_limit": 16, "memory_limit_mib": 65536, "disk_limit_gib": 1000,
}  # fmt: skip


def host(given: dict[str, Any]) -> HostRow:
    """What a file does not say of a host is as in ``HOST``; what is free is all, if it does not say otherwise."""
    row = {**HOST, **given}
    free = {n.replace("limit", "free"): row[n] for n in ("vcpus_limit", "memory_limit_mib", "disk_limit_gib")}
    return HostRow(**{**free, **row})


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    specs = {"vcpus": 2, "memory_mib": 4096, "disk_gib": 20, **case["request"]}
    specs["labels"] = tuple(specs.get("labels", ()))
    specs["group_hosts"] = frozenset(specs.get("group_hosts", ()))
    policy: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in case.get("policy", {}).items()}
    host_table = HostTable([host(given) for given in case["hosts"]])
    pins = [(int(lease), h) for lease, hosts in case.get("leases", {}).items() for h in hosts]
    leases = PinnedLeases(host_table, pins) if "leases" in case else None
    placement = place(Request(**specs), host_table, policy=policy_for(Scheduler(**policy)), leases=leases)
    given_leases = {"leases": list(placement.lease_ids)} if leases is not None else {}
    return {"hosts": list(placement.host_ids), **given_leases, "said": placement.explain_refusals()}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_comes_of_it(file: Path) -> None:
    case = json.loads(file.read_text())
    if os.environ.get("PILEUS_GOLDEN") == "write":
        file.write_text(json.dumps({**case, "placed": outcome(case)}, indent=2) + "\n")
        return
    assert outcome(case) == case["placed"]


def test_each_is_in_the_documentation() -> None:
    text = (ROOT / "docs/placement.md").read_text()
    assert [f.stem for f in FILES if f"placements/{f.name}" not in text] == []
