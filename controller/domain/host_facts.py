"""What a host may say of itself, when it joins and with every heartbeat: checked field by field."""

import re
from collections.abc import Callable, Iterable

from controller.domain.errors import InvalidParameter
from controller.domain.messages import END_OF_EPOCHS, HostReported

MAX_IMAGES = 256
MAX_MACS = 4096
MAX_LABELS = 32
MAX_REMARKS = 32
# All labels of a host together: what it had and what it has must fit into the text of its drift.
MAX_LABELS_CHARS = 320
# More than any machine has; with the overcommit ratios it still fits the columns.
MOST = {"vcpus": 16_384, "memory_mib": 64 * 1024**2, "disk_gib": 4 * 1024**2}
MOST_OVERHEAD_MIB = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}", re.ASCII)
_ZONE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/=:-]{0,62}", re.ASCII)
_RELEASE = re.compile(r"[A-Za-z0-9.+-]{0,32}", re.ASCII)
_BOOT_ID = re.compile(r"[!-~]{0,64}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


def check_facts(facts: HostReported, *, joining: bool = False) -> None:
    """Refuse what cannot be true of a host, or does not fit. A host that is ``joining`` offers something.

    Raises:
        InvalidParameter: with the field; a host's name is the field ``name``.
    """
    _check("name", facts.host, _NAME, "a name has 1 to 63 letters, digits, dots, hyphens and underscores")
    _check("boot_id", facts.boot_id, _BOOT_ID, "it has 64 printable characters at most")
    _check("release", facts.release, _RELEASE, "it is like 0.2.0")
    _require(1 <= facts.speaks < 2**31, "speaks", facts.speaks, "it lies between 1 and 2147483647")
    _check("hypervisor", facts.hypervisor, _WORD, "it is a word of 1 to 16 small letters and digits")
    _check("architecture", facts.architecture, _WORD, "it is a word such as x86_64")
    _check("zone", facts.zone, _ZONE, "a zone has 63 letters, digits, dots, hyphens and underscores at most")
    for field, most in MOST.items():
        least = 1 if joining and field != "disk_gib" else 0
        value = getattr(facts, field)
        _require(least <= value <= most, field, value, f"it lies between {least} and {most}")
    overhead_mib = facts.guest_overhead_mib
    between = f"it lies between 0 and {MOST_OVERHEAD_MIB}"
    _require(0 <= overhead_mib <= MOST_OVERHEAD_MIB, "guest_overhead_mib", overhead_mib, between)
    check_labels(facts.labels)
    _check_each("disk_backends", facts.disk_backends, _WORD, 8, "a word of 1 to 16 small letters and digits")
    _check_each("images", facts.images, _SHA256, MAX_IMAGES, "a SHA-256 in hexadecimal digits")
    _check_each("allowed_macs", facts.allowed_macs or (), _MAC, MAX_MACS, "as 52:54:00:01:02:03")
    _require(0 <= facts.sequence < 2**63, "sequence", facts.sequence, f"it lies between 0 and {2**63 - 1}")
    between = f"it lies between 0 and {END_OF_EPOCHS - 1}"
    _require(0 <= facts.epoch < END_OF_EPOCHS, "epoch", facts.epoch, between)
    _require(len(facts.remarks) <= MAX_REMARKS, "remarks", len(facts.remarks), f"there are {MAX_REMARKS} at most")
    _require(len(facts.probe_error) <= 500, "probe_error", len(facts.probe_error), "500 characters at most")


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
