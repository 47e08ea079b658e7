import base64

import pytest

from controller.domain.errors import InvalidUserData
from controller.domain.user_data import MAX_BYTES, check_user_data, user_data_bytes


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", bytes(MAX_BYTES)])
def test_accepted_user_data_comes_back(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    check_user_data(text)
    assert user_data_bytes(text) == data


def test_too_much_is_refused() -> None:
    with pytest.raises(InvalidUserData, match=str(MAX_BYTES)):
        check_user_data(base64.b64encode(bytes(MAX_BYTES + 1)).decode())


@pytest.mark.parametrize("text", ["!", "YQ", "YWJj\nZGVm", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidUserData, match="base64"):
        check_user_data(text)


def test_a_row_that_is_not_base64_is_given_as_it_is() -> None:
    assert user_data_bytes("#!/bin/sh") == b"#!/bin/sh"
