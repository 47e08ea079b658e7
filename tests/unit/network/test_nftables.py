"""The firewall's text; what it does is tried in ``tests/system/test_network.py``."""

from pathlib import Path

from network.nftables import ruleset
from network.segment import Segment

GOLDEN = Path(__file__).with_name("golden")
SEGMENTS = (
    Segment.of("0a1b2c3d", "net-0123456789abcdef0", 101, "10.128.4.0/22"),
    Segment.of("0a1b2c3d", "net-0123456789abcdef1", 100, "10.128.0.0/22"),
)


def test_golden() -> None:
    text = ruleset("0a1b2c3d", SEGMENTS, metadata_port=8775, nat=True)
    assert text == (GOLDEN / "nftables.nft").read_text()


def test_order_of_networks_does_not_matter() -> None:
    assert ruleset("0a1b2c3d", SEGMENTS, metadata_port=1, nat=True) == ruleset(
        "0a1b2c3d", SEGMENTS[::-1], metadata_port=1, nat=True
    )


def test_without_nat_nothing_is_forwarded() -> None:
    text = ruleset("0a1b2c3d", SEGMENTS, metadata_port=8775, nat=False)
    assert "masquerade" not in text
    assert "established,related accept" not in text.partition("chain inwards")[2]


def test_without_networks_the_sets_are_empty() -> None:
    assert "elements" not in ruleset("0a1b2c3d", (), metadata_port=8775, nat=True)
