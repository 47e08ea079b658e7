"""Whether this host routes: switched on for the guests' sake, and back again as it was."""

from pathlib import Path

_SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
_MEMO = "ip_forward.before"


def switch_on(root: Path) -> None:
    """Have the kernel route; what it did before is remembered below ``root``."""
    before = _SWITCH.read_text().strip()
    if before == "1":
        return
    memo = root / _MEMO
    if not memo.exists():
        memo.write_text(f"{before}\n")
    _SWITCH.write_text("1")


def restore(root: Path) -> None:
    """As before ``switch_on``; nothing if that changed nothing."""
    memo = root / _MEMO
    if memo.exists():
        _SWITCH.write_text(memo.read_text().strip() or "0")
        memo.unlink()
