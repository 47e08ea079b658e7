"""Programs are run without a shell and with a deadline."""

import pytest

from controller.domain.errors import CommandFailed
from controller.programs.run import run


def test_a_program_is_run_without_a_shell_and_with_a_deadline() -> None:
    assert run(["printf", "%s", "$HOME;ls"]) == "$HOME;ls"
    assert run(["cat"], stdin="text") == "text"
    with pytest.raises(CommandFailed, match="status 3: said why"):
        run(["sh", "-c", "echo said why >&2; exit 3"])
    with pytest.raises(CommandFailed, match=r"killed after 0\.1 s"):
        run(["sleep", "30"], timeout_s=0.1)
    with pytest.raises(CommandFailed, match="No such file"):
        run(["/no/such/program"])
