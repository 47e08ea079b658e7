"""Every reason of the domain has its code in EC2."""

import pytest

from api.ec2.reasons import EC2_REASON, FAILED, ec2_reason
from controller.domain.reasons import ReasonCode


def test_every_reason_has_one() -> None:
    assert EC2_REASON.keys() == set(ReasonCode)


def test_codes_of_the_domain_are_not_taken_for_ec2s() -> None:
    assert not any("." in code for code in ReasonCode)


@pytest.mark.parametrize("code", ["Server.InternalError", "Client.InstanceInitiatedShutdown", "Server.X"])
def test_rows_of_earlier_releases_have_ec2s_codes(code: str) -> None:
    assert ec2_reason(code) == code


@pytest.mark.parametrize("code", ["", "of_a_newer_release"])
def test_an_unknown_reason_is_a_failure(code: str) -> None:
    assert ec2_reason(code) == FAILED
