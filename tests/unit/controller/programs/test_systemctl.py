"""What systemd says of this machine."""

import pytest

from controller.domain.errors import CommandFailed
from controller.programs import systemctl


@pytest.mark.parametrize(("said", "stopping"), [("stopping", True), ("degraded", False), ("offline", False)])
def test_machine_is_stopping(monkeypatch: pytest.MonkeyPatch, said: str, stopping: bool) -> None:
    def run(argv: list[str], *, timeout_s: float) -> str:
        raise CommandFailed(program=argv[0], status=1, stderr=said)

    monkeypatch.setattr(systemctl, "run", run)
    assert systemctl.machine_is_stopping() is stopping
