"""The policy that a configuration names."""

from importlib.metadata import entry_points

import pytest

from controller.conf.settings import Scheduler
from controller.domain.errors import ConfigurationError
from scheduler import filters as documented_filters
from scheduler import weighers as documented_weighers
from scheduler.placement import filters, weighers
from scheduler.placement.policy import FILTERS, WEIGHERS, policy_for


def test_filters_keep_the_order_of_the_configuration() -> None:
    policy = policy_for(Scheduler(filters=("zone", "capacity", "alive")))
    assert [name for name, _ in policy.filters] == ["zone", "capacity", "alive"]
    assert policy.lasting == 1


def test_every_offered_filter_is_asked_by_default() -> None:
    assert policy_for(Scheduler()).lasting == len(policy_for(Scheduler()).filters) - 2


def test_pack_turns_the_weight_of_the_load() -> None:
    settings = Scheduler(strategy="pack", weighers=("load:2", "image_present"))
    assert [weight for _, weight in policy_for(settings).weighers] == [-2.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Scheduler(filters=("alive", "luck")), r"filters: nothing is called luck; there are alive, architecture"),
        (Scheduler(weighers=("moon:1",)), r"weighers: nothing is called moon; there are image_present, load"),
        (Scheduler(weighers=("load:much",)), r"'load:much' must be a name, a colon and a number"),
        (Scheduler(weighers=("load:nan",)), r"'load:nan' must be"),
    ],
)
def test_what_is_not_there_is_refused_by_name(settings: Scheduler, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        policy_for(settings)


def test_documented_modules_offer_every_built_in() -> None:
    for group, documented, module in (
        (FILTERS, documented_filters, filters),
        (WEIGHERS, documented_weighers, weighers),
    ):
        names = {e.attr for e in entry_points(group=group) if e.module.startswith("scheduler.")}
        assert names
        assert {name for name in names if getattr(documented, name) is not getattr(module, name)} == set()
