"""The sample configuration says what the code knows."""

from pathlib import Path

from oslo_config import generator

from controller.conf.options import list_opts

ROOT = Path(__file__).parents[2]


def test_the_sample_is_current(tmp_path: Path) -> None:
    made = tmp_path / "pileus.conf.sample"
    generator.main(
        ["--config-file", str(ROOT / "etc/oslo-config-generator.conf"), "--output-file", str(made)],
    )
    sample = ROOT / "etc/pileus.conf.sample"
    assert sample.read_text() == made.read_text(), (
        "run: oslo-config-generator --config-file etc/oslo-config-generator.conf"
    )


def test_every_option_has_a_meaning() -> None:
    assert [o.name for _, opts in list_opts() for o in opts if not o.help] == []
