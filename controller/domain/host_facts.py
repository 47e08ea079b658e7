"""The facts of a host: one table says how each is checked, stored, compared, shown and claimed.

A fact is a field of ``HostReported`` and the column of the same name in the host's row. Everything else is derived from
its row here: what a heartbeat may say (``check_facts``), what is written (``operations.hosts.hosts``), drift, ``pileus
host``, and what the scheduler reads of the host. A new kind of capacity needs its row here and its columns: of hosts
(total, limit, used), claims, instances and instance types.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

from controller.domain.errors import InvalidParameter
from controller.domain.messages import END_OF_EPOCHS, HostReported

MAX_IMAGES = 256
MAX_MACS = 4096
MAX_LABELS = 32
MAX_REMARKS = 32
# All labels of a host together: the old and the new ones must fit into the text of its drift.
MAX_LABELS_CHARS = 320

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}", re.ASCII)
_ZONE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/=:-]{0,62}", re.ASCII)
_RELEASE = re.compile(r"[A-Za-z0-9.+-]{0,32}", re.ASCII)
_BOOT_ID = re.compile(r"[!-~]{0,64}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


def check_labels(labels: tuple[str, ...]) -> None:
    """Refuse labels that no host can have. Raises InvalidParameter."""
    _check_each("labels", labels, _LABEL, MAX_LABELS, "letters, digits and ._/=:-, 63 at most")
    length = len(",".join(labels))
    _require(length <= MAX_LABELS_CHARS, "labels", length, f"{MAX_LABELS_CHARS} characters together at most")


def normal_macs(lines: Iterable[str], where: Callable[[int], str] = "line {}".format) -> tuple[str, ...]:
    """The MAC addresses of these lines, in small letters and in order, each once; ``#`` begins a comment.

    Raises:
        InvalidParameter: a line that is none, or more than MAX_MACS of them.
    """
    found: set[str] = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        mac = text.lower().replace("-", ":")
        _require(bool(_MAC.fullmatch(mac)), where(number), text, "it is no MAC address")
        _require(not int(mac[1], 16) & 1, where(number), text, "it is the address of a group, no guest's")
        found.add(mac)
        _require(len(found) <= MAX_MACS, where(number), text, f"{MAX_MACS} MAC addresses at most")
    return tuple(sorted(found))


def _check(field: str, value: str, form: "re.Pattern[str]", reason: str) -> None:
    _require(bool(form.fullmatch(value)), field, value, reason)


def _check_each(field: str, values: tuple[str, ...], form: "re.Pattern[str]", most: int, reason: str) -> None:
    _require(len(values) <= most, field, f"{len(values)} of them", f"there are {most} at most")
    for value in values:
        _check(field, value, form, f"each is {reason}")


def _require(true: bool, field: str, value: object, reason: str) -> None:
    if not true:
        raise InvalidParameter(parameter=field, value=ascii(str(value)[:60]).strip("'"), reason=reason)


def _matches(form: "re.Pattern[str]", reason: str) -> Callable[[str, Any], None]:
    return lambda field, value: _check(field, value, form, reason)


def _all_match(form: "re.Pattern[str]", most: int, reason: str) -> Callable[[str, Any], None]:
    return lambda field, values: _check_each(field, values, form, most, reason)


def _between(least: int, most: int) -> Callable[[str, Any], None]:
    def check(field: str, value: Any) -> None:
        _require(least <= value <= most, field, value, f"it lies between {least} and {most}")

    return check


class Drift(Enum):
    """Which change of a fact is noted as drift, until an operator accepts it."""

    NEVER = auto()
    CHANGED = auto()
    SMALLER = auto()  # more of it is welcome
    LOST = auto()  # of a list: one item more is welcome


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact. ``check`` raises InvalidParameter for a (field, value) that cannot be true, or does not fit.

    ``shown``: among the facts of ``pileus host show``; ``listed``: a column of ``pileus host list``, too.
    ``max_chars``: drift notes the longest facts last, as its text may be cut.
    """

    name: str
    check: Callable[[str, Any], None]
    drift: Drift = Drift.NEVER
    shown: bool = False
    listed: bool = False
    max_chars: int = 0


@dataclass(frozen=True, kw_only=True)
class Capacity(Fact):
    """A capacity that instances claim a share of; ``name`` is also its column in claims and instances.

    ``limit`` and ``used`` are the host's columns of what may be claimed and is claimed; ``ratio`` is the overcommit
    option of [scheduler], ``unit`` follows a number, ``lacking`` is why a host without room is refused.
    ``overhead``: the fact that each guest takes of it beside its own share. ``most`` is more than any machine has; with
    the ratios it still fits the columns. A change by up to the share ``steady`` of it is none: it varies all the time.
    """

    most: int
    limit: str
    used: str
    ratio: str
    unit: str
    lacking: str
    least_joining: int = 1
    overhead: str = ""
    steady: float = 0.0


def _capacity(name: str, most: int, **traits: Any) -> Capacity:
    return Capacity(name=name, check=_between(0, most), most=most, drift=Drift.SMALLER, shown=True, **traits)


FACTS: tuple[Fact, ...] = (
    Fact(name="boot_id", check=_matches(_BOOT_ID, "it has 64 printable characters at most")),
    Fact(name="release", check=_matches(_RELEASE, "it is like 0.2.0")),
    Fact(name="speaks", check=_between(1, 2**31 - 1)),
    Fact(
        name="hypervisor",
        check=_matches(_WORD, "it is a word of 1 to 16 small letters and digits"),
        drift=Drift.CHANGED,
        shown=True,
        listed=True,
        max_chars=16,
    ),
    Fact(
        name="architecture",
        check=_matches(_WORD, "it is a word such as x86_64"),
        drift=Drift.CHANGED,
        shown=True,
        max_chars=16,
    ),
    Fact(
        name="zone",
        check=_matches(_ZONE, "a zone has 63 letters, digits, dots, hyphens and underscores at most"),
        drift=Drift.CHANGED,
        shown=True,
        listed=True,
        max_chars=63,
    ),
    Fact(
        name="labels",
        check=lambda _, labels: check_labels(labels),
        drift=Drift.CHANGED,
        shown=True,
        listed=True,
        max_chars=MAX_LABELS_CHARS,
    ),
    Fact(
        name="disk_backends",
        check=_all_match(_WORD, 8, "a word of 1 to 16 small letters and digits"),
        drift=Drift.LOST,
        shown=True,
        max_chars=8 * 17,
    ),
    _capacity(
        "vcpus",
        16_384,
        limit="vcpus_limit",
        used="vcpus_used",
        ratio="cpu_ratio",
        unit="vCPUs",
        lacking="too few free vCPUs",
        listed=True,
    ),
    _capacity(
        "memory_mib",
        64 * 1024**2,
        limit="memory_limit_mib",
        used="memory_used_mib",
        ratio="memory_ratio",
        unit="MiB of memory",
        lacking="too little free memory",
        overhead="guest_overhead_mib",
        listed=True,
    ),
    Fact(name="guest_overhead_mib", check=_between(0, 64 * 1024), shown=True),
    _capacity(
        "disk_gib",
        4 * 1024**2,
        limit="disk_limit_gib",
        used="disk_used_gib",
        ratio="disk_ratio",
        unit="GiB of disk",
        lacking="too little free disk",
        least_joining=0,
        steady=0.05,
    ),
    Fact(name="images", check=_all_match(_SHA256, MAX_IMAGES, "a SHA-256 in hexadecimal digits")),
)
CAPACITIES = tuple(fact for fact in FACTS if isinstance(fact, Capacity))
# What one instance, one instance type or one host has of each capacity at most.
MOST = MappingProxyType({c.name: c.most for c in CAPACITIES})
DRIFTING = tuple(
    sorted(
        (fact for fact in FACTS if fact.drift is not Drift.NEVER),
        key=lambda fact: (not isinstance(fact, Capacity), fact.max_chars),
    )
)


def columns_of(fact: Fact) -> tuple[str, ...]:
    """The columns of a host's row that ``pileus host show`` has for a fact."""
    return (fact.name, fact.limit, fact.used) if isinstance(fact, Capacity) else (fact.name,)


def list_columns_of(fact: Fact) -> tuple[str, ...]:
    """The columns of a host's row that ``pileus host list`` has for a fact."""
    return (fact.used, fact.limit) if isinstance(fact, Capacity) else (fact.name,)


def check_facts(facts: HostReported, *, joining: bool = False) -> None:
    """Refuse what cannot be true of a host, or does not fit. A host that is ``joining`` has some of each capacity.

    Raises:
        InvalidParameter: with the field; a host's name is the field ``name``.
    """
    _check("name", facts.host, _NAME, "a name has 1 to 63 letters, digits, dots, hyphens and underscores")
    for fact in FACTS:
        check = fact.check
        if joining and isinstance(fact, Capacity):
            check = _between(fact.least_joining, fact.most)
        check(fact.name, getattr(facts, fact.name))
    _check_each("allowed_macs", facts.allowed_macs or (), _MAC, MAX_MACS, "as 52:54:00:01:02:03")
    _between(0, 2**63 - 1)("sequence", facts.sequence)
    _between(0, END_OF_EPOCHS - 1)("epoch", facts.epoch)
    _require(len(facts.remarks) <= MAX_REMARKS, "remarks", len(facts.remarks), f"there are {MAX_REMARKS} at most")
    _require(len(facts.probe_error) <= 500, "probe_error", len(facts.probe_error), "500 characters at most")
