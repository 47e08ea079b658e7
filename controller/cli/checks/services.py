"""The services that run on this machine already: what they say of themselves."""

from collections.abc import Sequence

from controller.cli.checks.item import Item, Subject, fail, ok, warn
from controller.cli.health_file import processes

_ADVICE = "`systemctl status`, `journalctl -u` of its unit and <state>/log say more"


def probe(subject: Subject) -> Sequence[Item]:
    """Whether the running ones can do their work; that none runs is no fault."""
    here = [p for p in processes(subject.settings) if set(p.services) & set(subject.services)]
    problems = {p.name: p for process in here for p in process.problems}
    bad = [(fail if p.vital else warn)(f"running {p.name}", p.reason.rstrip("."), _ADVICE) for p in problems.values()]
    well = sorted({name for process in here for name in process.services if name not in problems})
    if not here:
        return [ok("running services", "none here")]
    return [*bad, *([ok("running services", ", ".join(well))] if well else [])]
