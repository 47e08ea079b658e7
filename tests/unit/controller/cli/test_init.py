"""`pileus init`: done twice it changes nothing, and what it writes is complete and private."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli.cloudrc import read_credentials
from controller.cli.configuration_file import changed_text, new_text
from controller.cli.main import pileus
from controller.conf import load_settings
from controller.domain.errors import ConfigurationError
from tests.labs.command import Command

VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_EC2"),
    *("EC2_URL", "EC2_ACCESS_KEY", "EC2_SECRET_KEY"),
    *("PILEUS_URL", "PILEUS_USER", "PILEUS_PASSWORD", "PILEUS_TOKEN", "PILEUS_STATE"),
)


def sourced(cloudrc: Path, *names: str) -> list[str]:
    script = f"set -eu; . {shlex.quote(str(cloudrc))}; printf '%s\\n' " + " ".join(f'"${n}"' for n in names)
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/bin"})
    return done.stdout.splitlines()


def test_a_shell_finds_every_variable(command: Command) -> None:
    values = dict(zip(VARIABLES, sourced(command.state / "cloudrc", *VARIABLES), strict=True))
    assert all(values.values())
    assert values["AWS_ENDPOINT_URL_EC2"] == f"{values['PILEUS_URL']}/ec2/"
    assert values["PILEUS_USER"] == "admin"
    assert "ONE_" not in (command.state / "cloudrc").read_text()
    assert values["PILEUS_STATE"] == str(command.state)


def test_the_path_is_made_longer_only_where_a_client_is_missing(command: Command) -> None:
    (path,) = sourced(command.state / "cloudrc", "PATH")
    assert path.startswith("/bin:")


def test_a_folder_with_a_difficult_name(tmp_path: Path) -> None:
    command = Command(tmp_path / "it's a $HOME `cloud`")
    command("init", "--simulated", "1")
    assert sourced(command.state / "cloudrc", "PILEUS_STATE") == [str(command.state)]
    assert load_settings(command.state / "pileus.conf").general.state_dir == str(command.state)


def test_twice_is_once(command: Command) -> None:
    files = {p.name: p.read_bytes() for p in command.state.iterdir() if p.is_file() and "pileus.db" not in p.name}
    users = command.json("user", "list")
    command("init", "--simulated", "3")
    assert {name: (command.state / name).read_bytes() for name in files} == files
    assert command.json("user", "list") == users
    assert len(command.json("user", "key", "list", "admin")) == 1


def test_a_lost_cloudrc_is_written_anew(command: Command) -> None:
    cloudrc = command.state / "cloudrc"
    before = read_credentials(cloudrc)
    cloudrc.unlink()
    command("init")
    after = read_credentials(cloudrc)
    assert before and after
    assert before.access_key != after.access_key


def test_a_disabled_key_is_replaced(command: Command) -> None:
    before = read_credentials(command.state / "cloudrc")
    assert before
    command("user", "key", "disable", before.access_key)
    command("init")
    after = read_credentials(command.state / "cloudrc")
    assert after
    assert after.access_key != before.access_key


def test_secrets_are_private(command: Command) -> None:
    for name in ("cloudrc", "secret.key", "pileus.conf", "pileus.db"):
        assert (command.state / name).stat().st_mode & 0o077 == 0, name


def test_later_options_change_only_their_lines(command: Command) -> None:
    file = command.state / "pileus.conf"
    file.write_text(file.read_text() + "\n[quota]\n# our own\ninstances = 7\n")
    command("init", "--simulated", "5", "--port", "18000")
    settings = load_settings(file)
    assert (settings.compute.simulated_hosts, settings.api.listen_port, settings.quota.instances) == (5, 18000, 7)
    assert "# our own" in file.read_text()
    assert ":18000" in (command.state / "cloudrc").read_text()


def test_a_real_cloud_does_not_become_simulated(nowhere: Command, refused: Callable[..., str]) -> None:
    nowhere("init", "--cidr-pool", "10.9.0.0/16")
    assert "another --state" in refused(nowhere, "init", "--simulated", "3")


def test_credentials_of_a_0_1_cloudrc(command: Command) -> None:
    cloudrc = command.state / "cloudrc"
    before = read_credentials(cloudrc)
    assert before
    lines = [line for line in cloudrc.read_text().splitlines() if not line.startswith("export PILEUS_USER=")]
    lines = [line for line in lines if not line.startswith("export PILEUS_PASSWORD=")]
    cloudrc.write_text("\n".join([*lines, f"export ONE_AUTH_STRING={before.user}:{before.password}"]))
    command("init")
    assert read_credentials(cloudrc) == before


def test_an_aws_that_knows_no_variable_is_told_the_endpoint(command: Command, tmp_path: Path) -> None:
    """Debian 12's aws is 2.9; tests/system/test_site_page.py runs the real one."""
    (tmp_path / "aws").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "aws").chmod(0o755)
    script = '. "$1"; aws ec2 describe-instances; bash -c "aws ec2 stop-instances"; echo "$AWS_ENDPOINT_URL_EC2"'
    argv = ["/bin/bash", "-euc", script, "bash", str(command.state / "cloudrc")]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    first, second, url = done.stdout.splitlines()
    assert (first, second) == (
        f"--endpoint-url {url} ec2 describe-instances",
        f"--endpoint-url {url} ec2 stop-instances",
    )


def test_a_site_is_set_up_by_its_configuration_file(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    folder.chmod(0o2750)
    file = folder / "pileus.conf"
    file.write_text((command.state / "pileus.conf").read_text() + f"\n[auth]\nsecret_key_file = {folder}/secret.key\n")
    (command.state / "pileus.conf").unlink()
    (command.state / "pileus.db").unlink()
    done = CliRunner().invoke(pileus, ["--config", str(file), "init"])
    assert done.exit_code == 0, done.output
    assert (folder / "secret.key").stat().st_mode & 0o777 == 0o640
    assert "PILEUS_STATE" not in (command.state / "cloudrc").read_text()
    assert CliRunner().invoke(pileus, ["--config", str(tmp_path / "none"), "init"]).exit_code == 2


@pytest.mark.parametrize("value", ["a\nb", " a", "a "])
def test_a_value_that_the_file_cannot_hold(value: str) -> None:
    with pytest.raises(ConfigurationError):
        new_text({("DEFAULT", "state_dir"): value})


def test_changing_adds_what_is_missing() -> None:
    text = changed_text("[api]\nlisten_port = 1\n[quota]\n", {("api", "region"): "r", ("bus", "prefetch"): 3})
    assert text.index("region = r") < text.index("[quota]") < text.index("[bus]") < text.index("prefetch = 3")
