"""One run of the auditor on a live cloud: looks, looks again, mends what is safe, and looks whether that helped."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from controller.domain.errors import InvalidParameter
from controller.operations.audit.audit import audit
from controller.operations.audit.observed_state import TIMEOUT_S, MakeExecutor, ObservedState, observe
from controller.operations.audit.repair import MOST_REMOVALS, repair
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Cloud
from controller.operations.networks import quarantine

# Looks after a repair until what was mended must be seen to be.
_LOOKS = 5
# Longer than this an audit neither waits between two looks nor for an answer.
MOST_S = 120.0
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class AuditOptions:
    """How to run: ``settle_s`` is between two looks; ``most_removals``: more guests than that are not removed.

    Raises:
        InvalidParameter: a time is out of its range.
    """

    repair: bool = False
    observed: bool = True
    settle_s: float = 3.0
    timeout_s: float = TIMEOUT_S
    most_removals: int = MOST_REMOVALS

    def __post_init__(self) -> None:
        for name in ("settle_s", "timeout_s"):
            value = getattr(self, name)
            if not 0 <= value <= MOST_S:
                raise InvalidParameter(parameter=name, value=str(value), reason=f"it lies between 0 and {MOST_S:g}")


@dataclass(frozen=True)
class Report:
    """What is broken now, what was and is mended, and what else the operator should know."""

    violations: Sequence[Violation] = ()
    mended: Sequence[Violation] = ()
    notes: Sequence[str] = field(default=())


def run_audit(
    cloud: Cloud,
    options: AuditOptions = AuditOptions(),
    pause: Callable[[float], None] = time.sleep,
    executor: MakeExecutor = ThreadPoolExecutor,
) -> Report:
    """Audit, and repair where that is wished; ``executor`` makes what asks the hosts. Raises DatabaseUnavailable."""
    auditor = _Auditor(cloud, options, pause, executor)
    found = auditor.look()
    if not (options.repair and any(b.remedy for b in found)):
        return Report(found, (), auditor.notes())
    refused = repair(cloud, found, options.timeout_s, options.most_removals)
    tried = {b.key for b in found if b.remedy is not None}
    left = found
    for _ in range(_LOOKS):
        pause(options.settle_s)
        left = auditor.look()
        if refused or not tried & {b.key for b in left}:
            break
    still = {b.key for b in left}
    mended = [b for b in found if b.remedy is not None and b.key not in still]
    return Report(left, mended, [*refused, *auditor.notes()])


class _Auditor:
    """Looks; what was seen outside the database is believed when it is seen twice."""

    def __init__(
        self, cloud: Cloud, options: AuditOptions, pause: Callable[[float], None], executor: MakeExecutor
    ) -> None:
        self._cloud = cloud
        self._options = options
        self._pause = pause
        self._executor = executor
        self._seen = ObservedState()
        self._quarantined: Sequence[quarantine.Quarantined] = ()

    def look(self) -> list[Violation]:
        first = self._once()
        suspects = {b.key for b in first if b.proof}
        if not suspects:
            return first
        self._pause(self._options.settle_s)
        return [b for b in self._once() if not b.proof or b.key in suspects]

    def notes(self) -> list[str]:
        """What an operator should know and that breaks no promise, by what was seen last."""
        found = [] if self._options.observed else ["only the database was looked at: no host, no DHCP, no firewall"]
        kept = {h: len(e.kept) for h, e in sorted(self._seen.hosts.items()) if e.kept}
        if kept:
            found.append(f"{sum(kept.values())} disks of removed guests are kept, on {_named(list(kept))}")
        if self._quarantined:
            hosts = sorted({q.host for q in self._quarantined})
            where = f"because of {_named(hosts)}: where one is surely dead, `pileus host fence` frees them"
            found.append(f"{len(self._quarantined)} addresses are in quarantine for more than a day, {where}")
        return found

    def _once(self) -> list[Violation]:
        # The hosts first, then the rows: what appears on a host in between has had its row before.
        seen: ObservedState | None = None
        if self._options.observed:
            seen = self._seen = observe(self._cloud, self._options.timeout_s, self._executor)
        self._quarantined = self._cloud.read(lambda tx: quarantine.list_quarantined(tx, before=tx.now - _DAY))
        return self._cloud.read(lambda tx: audit(tx, seen))


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:10]) + (", ..." if len(hosts) > 10 else "")


def document(report: Report) -> dict[str, Any]:
    """The report as JSON: what ``--output json`` prints and the running cloud answers with."""
    return {
        "clean": not report.violations,
        "breaches": [_violation(b) for b in report.violations],
        "mended": [_violation(b) for b in report.mended],
        "notes": list(report.notes),
    }


def _violation(violation: Violation) -> dict[str, Any]:
    return {
        "promise": violation.promise,
        "what": violation.what,
        "subject": violation.subject,
        "advice": violation.advice,
        "remedy": violation.remedy.mend.value if violation.remedy else "",
    }
