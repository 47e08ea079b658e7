"""systemctl(1). Every function raises CommandFailed, also on a machine without systemd."""

from controller.domain.errors import CommandFailed
from controller.programs.run import run

_TIMEOUT_S = 30.0


def daemon_reload() -> None:
    """Have systemd read the files of its units again."""
    _systemctl("daemon-reload")


def restart(unit: str) -> None:
    """Start a unit; one that is active is stopped first."""
    _systemctl("restart", unit)


def stop(unit: str) -> None:
    """Stop a unit."""
    _systemctl("stop", unit)


def show(unit: str, *names: str) -> dict[str, str]:
    """These properties of a unit."""
    text = _systemctl("show", f"--property={','.join(names)}", unit)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def machine_is_stopping() -> bool:
    """Whether this machine is shutting down; False if systemd does not say so. Raises nothing."""
    try:
        run(["systemctl", "is-system-running"], timeout_s=5)
    except CommandFailed as error:
        return "stopping" in str(error)
    return False


def _systemctl(*arguments: str) -> str:
    return run(["systemctl", *arguments], timeout_s=_TIMEOUT_S)
