"""The firewall of the guests' bridges: one nftables table, written as a whole and replaced atomically.

Everything from a bridge of ours is dropped unless a rule lets it through; only the sets depend on the networks, so a
bridge that is not in them yet reaches nothing.
"""

from collections.abc import Iterable, Sequence

from controller.domain.names import bridge_prefix, nft_table
from controller.programs import nft
from network.segment import Segment

_METADATA = "169.254.169.254"

_RULES = """
\tchain guard {{
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tiifname "{bridges}" jump from_guest
\t}}

\t# What a guest may send at all. The machine's own link-local addresses are not the guests'.
\tchain from_guest {{
\t\tmeta nfproto ipv6 drop
\t\tip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
\t\tiifname . ip saddr != @sources drop
\t\tip daddr {metadata} tcp dport 80 accept
\t\tip daddr 169.254.0.0/16 drop
\t}}

\tchain redirect_metadata {{
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tiifname "{bridges}" ip daddr {metadata} tcp dport 80 redirect to :{port}
\t}}

\tchain input {{
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname "{bridges}" jump to_gateway
\t\ttcp dport {port} iifname != "lo" drop
\t}}

\tchain to_gateway {{
\t\tmeta nfproto ipv6 drop
\t\ttcp dport {port} ct status dnat iifname . ip daddr @gateways accept
\t\ttcp dport {port} drop
\t\tct state established,related accept
\t\tudp sport 68 udp dport 67 accept
\t\tiifname . ip daddr @gateways meta l4proto {{ tcp, udp }} th dport 53 accept
\t\tiifname . ip daddr @gateways icmp type echo-request accept
\t\tdrop
\t}}

\tchain forward {{
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname . oifname @within accept
\t\tiifname "{bridges}" oifname "{bridges}" drop
\t\tiifname "{bridges}" jump outwards
\t\toifname "{bridges}" jump inwards
\t}}

\tchain outwards {{
\t\tmeta nfproto ipv6 drop
\t\t{outwards}
\t}}

\tchain inwards {{
\t\t{inwards}
\t\tdrop
\t}}
"""
_NAT = """
\tchain masquerade_guests {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr @ranges oifname != "{bridges}" oifname != "lo" masquerade
\t}}
"""


def ruleset(cloud_id: str, segments: Sequence[Segment], *, metadata_port: int, nat: bool) -> str:
    """The script that replaces the cloud's table; the same segments give the same text."""
    table = nft_table(cloud_id)
    bridges = f"{bridge_prefix(cloud_id)}*"
    known = sorted(segments, key=lambda s: s.vlan)
    parts = [
        f"add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n",
        _set("sources", "ifname . ipv4_addr", (f'"{s.bridge}" . {s.cidr}' for s in known), interval=True),
        _set("ranges", "ipv4_addr", (s.cidr for s in known), interval=True),
        _set("gateways", "ifname . ipv4_addr", (f'"{s.bridge}" . {s.gateway}' for s in known)),
        # With br_netfilter, frames inside one bridge come here too.
        _set("within", "ifname . ifname", (f'"{s.bridge}" . "{s.bridge}"' for s in known)),
        _RULES.format(
            bridges=bridges,
            metadata=_METADATA,
            port=metadata_port,
            outwards="accept" if nat else "drop",
            inwards="ct state established,related accept" if nat else "meta nfproto ipv6 drop",
        ),
        _NAT.format(bridges=bridges) if nat else "",
        "}\n",
    ]
    return "".join(parts)


class Firewall:
    """The cloud's table on this host."""

    def __init__(self, cloud_id: str) -> None:
        self._table = nft_table(cloud_id)
        self._script = ""
        self._listing = ""

    def ensure(self, script: str, *, verify: bool) -> None:
        """Put the script in force unless it already is; ``verify``: also compare the table with what it was then.

        Raises:
            HostError: nft refused; the old table is still in force.
        """
        if script == self._script and not (verify and self.listing() != self._listing):
            return
        self._script = ""
        nft.apply(script)
        self._listing = self.listing()
        self._script = script

    def remove(self) -> None:
        """Remove the table; doing it twice is doing it once."""
        self._script = ""
        nft.delete_table(self._table)

    def listing(self) -> str:
        """The table as nft writes it, without counters; empty if there is none."""
        return nft.list_table(self._table)


def _set(name: str, kind: str, elements: Iterable[str], *, interval: bool = False) -> str:
    lines = [f"type {kind}", *(["flags interval"] if interval else [])]
    if members := ",\n\t\t\t".join(elements):
        lines.append(f"elements = {{\n\t\t\t{members}\n\t\t}}")
    return "".join([f"\tset {name} {{\n", *(f"\t\t{line}\n" for line in lines), "\t}\n\n"])
