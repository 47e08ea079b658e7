"""Settings: typed, ranged, passed on."""

from pathlib import Path

import pytest

from controller.conf import load_settings
from controller.conf.options import list_opts
from controller.domain.errors import ConfigurationError


def test_a_file_is_read_into_types(tmp_path: Path) -> None:
    file = tmp_path / "pileus.conf"
    file.write_text(
        "[DEFAULT]\nstate_dir = /srv/x\ncloud_id = 12ab34cd\n"
        "[api]\nlisten_port = 9000\n[network]\nnat = false\ndns_servers = 10.0.0.1,10.0.0.2\n"
        "[scheduler]\ncpu_ratio = 2.5\n"
    )
    settings = load_settings(file)
    assert settings.state_dir == Path("/srv/x")
    assert settings.public_url == "http://127.0.0.1:9000"
    assert settings.network.nat is False
    assert settings.network.dns_servers == ("10.0.0.1", "10.0.0.2")
    assert settings.scheduler.cpu_ratio == 2.5
    assert settings.database_url == "sqlite:////srv/x/pileus.db"


@pytest.mark.parametrize(
    "text",
    [
        "[api]\nlisten_port = many\n",
        "[api]\nlisten_port = 70000\n",
        "[DEFAULT]\ncloud_id = XYZ\n",
        "[scheduler]\nstrategy = random\n",
        "[network]\nvlan_first = 200\nvlan_last = 100\n",
        "no section\n",
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pileus.conf"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"Configuration: "):
        load_settings(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(tmp_path / "none.conf")


def test_every_option_says_what_it_is_and_secrets_are_marked() -> None:
    options = {(s, o.name): o for s, opts in list_opts() for o in opts}
    assert all(o.help for o in options.values())
    assert options["database", "url"].secret
    assert options["bus", "url"].secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[DEFAULT]\nlog_level = LOUD\n", "[DEFAULT] log_level is not valid: Valid values are [DEBUG, "),
        ("[database]\npool_size = many\n", "[database] pool_size is not valid: "),
    ],
)
def test_a_wrong_value_is_named_with_its_section(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "pileus.conf"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert f"{file}: {said}" in str(caught.value)
    assert "LocationInfo" not in str(caught.value)
