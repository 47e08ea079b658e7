"""What a network node reports to the auditor: what is there, read from the machine itself, not what we remember."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.conf.settings import Settings
from controller.domain.ids import NETWORK, is_id
from controller.domain.messages import NetworkObservation, SegmentObservation
from controller.domain.names import nft_table
from controller.processes import started_with
from controller.programs import ip, nft
from network import nftables
from network.dnsmasq import config as dnsmasq_config
from network.dnsmasq.files import served_lines
from network.queries import Rows
from network.segment import Segment

_ELEMENTS = re.compile(r"elements = \{([^}]*)\}")
# More differences than this are not reported.
_MOST = 20


def observe_networks(settings: Settings, root: Path, rows: Rows) -> NetworkObservation:
    """One look; to be taken while no reconciliation is under way.

    Raises:
        HostError: a program failed. OSError: a file cannot be read.
    """
    links = ip.read_links()
    prefix = f"--conf-file={root}/"
    arguments = started_with(settings.network.dnsmasq, prefix).values()
    servers = Counter(a.removeprefix(prefix).partition("/")[0] for a in arguments)
    segments = {s.network_id: s for s in rows.segments}
    folders = {p.name for p in root.iterdir() if is_id(p.name, NETWORK) and p.is_dir()}
    return NetworkObservation(
        host_side=True,
        segments=tuple(
            _segment(network_id, segments.get(network_id), settings, root / network_id, links, servers[network_id])
            for network_id in sorted({*segments, *folders, *servers})
        ),
        firewall=_firewall(settings, rows.segments),
    )


def _segment(
    network_id: str,
    segment: Segment | None,
    settings: Settings,
    folder: Path,
    links: Mapping[str, ip.Link],
    servers: int,
) -> SegmentObservation:
    options = _lines(folder / "dnsmasq.conf")
    numbers = [line.partition("=")[2] for line in options if line.startswith("dhcp-lease-max=")]
    return SegmentObservation(
        network_id=network_id,
        bridge=segment is not None and _is_whole(segment, links),
        servers=servers,
        lease_max=int(numbers[0]) if len(numbers) == 1 and numbers[0].isdecimal() else -1,
        # MAC,IP,NAME,seconds; any other line is reported as it is.
        served=tuple(line.rpartition(",")[0] if line.count(",") == 3 else line for line in served_lines(folder)),
        given=tuple(_given(_lines(folder / "leases"))),
        wrong_options=() if segment is None else _wrong_options(segment, settings, folder, options),
    )


def _is_whole(segment: Segment, links: Mapping[str, ip.Link]) -> bool:
    link = links.get(segment.bridge)
    return link is not None and link.up and f"{segment.gateway}/{segment.prefix_length}" in link.addresses


def _given(lines: Sequence[str]) -> list[str]:
    """MAC,IP of dnsmasq's own lines: expiry, MAC, IP, name, client id."""
    fields = [line.split() for line in lines]
    return [f"{f[1]},{f[2]}" for f in fields if len(f) >= 4 and f[0].isdecimal()]


def _wrong_options(segment: Segment, settings: Settings, folder: Path, options: Sequence[str]) -> tuple[str, ...]:
    # Whom dnsmasq becomes depends on the machine; what it is now is right.
    user = next((line.removeprefix("user=") for line in options if line.startswith("user=")), "")
    wanted = dnsmasq_config.options(segment, settings, folder, user).splitlines()
    return _differences(options, wanted)


def _firewall(settings: Settings, segments: Sequence[Segment]) -> tuple[str, ...]:
    conf, table = settings.network, nft_table(settings.general.cloud_id)
    script = nftables.ruleset(settings.general.cloud_id, segments, metadata_port=conf.metadata_port, nat=conf.nat)
    return _differences(_rules(nft.list_table(table)), _rules(nft.as_listed(script, table)))


def _rules(listing: str) -> list[str]:
    """The rules and sets, each after the name of what it is in; the elements of a set in one order."""
    found, where = [], ""
    for line in _ELEMENTS.sub(_sorted_elements, listing).splitlines():
        text = " ".join(line.split())
        if text.endswith("{"):
            where = text.removesuffix(" {")
        elif text not in ("", "}"):
            found.append(f"{where}: {text}")
    return found


def _sorted_elements(match: "re.Match[str]") -> str:
    return f"elements = ({', '.join(sorted(' '.join(e.split()) for e in match[1].split(',')))})"


def _differences(there: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """What is too much and what is missing; of rules that only changed places the first one is reported."""
    more, less = Counter(there) - Counter(wanted), Counter(wanted) - Counter(there)
    found = [*(f"+ {line}" for line in more), *(f"- {line}" for line in less)]
    if not found and list(there) != list(wanted):
        found = [f"+ {a} (out of its place)" for a, b in zip(there, wanted, strict=True) if a != b][:1]
    return tuple(found[:_MOST])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
