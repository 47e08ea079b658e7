"""Names of interfaces fit into what the kernel allows."""

from hypothesis import given
from hypothesis import strategies as st

from controller.domain import names


@given(st.integers(0, 2**68 - 1), st.integers(1, 4094), st.integers(0, 15))
def test_names_fit_into_an_interface(number: int, vlan: int, index: int) -> None:
    cloud, guest = "abcdef01", f"i-{number:017x}"
    for name in (names.bridge_name(cloud, vlan), names.trunk_name(cloud, vlan), names.tap_name(cloud, guest, index)):
        assert len(name) <= 15
        assert name.startswith(names.interface_prefix(cloud))
