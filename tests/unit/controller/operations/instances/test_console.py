"""The console is read from the agent of the instance's host."""

import pytest

from controller.domain.errors import AgentTimeout, InstanceNotFound, Unavailable
from controller.domain.messages import ConsoleRead
from controller.operations.instances.console import read_console
from tests.labs.cloud import TestCloud, place


def placed(site: TestCloud) -> str:
    (instance_id,) = site.launch(1)
    place(site)
    return instance_id


def test_an_instance_without_a_host_has_none(site: TestCloud) -> None:
    (instance_id,) = site.launch(1)
    assert read_console(site.cloud, site.project_id, instance_id) == ""


def test_the_agent_is_asked(site: TestCloud) -> None:
    instance_id = placed(site)
    site.bus.consoles[instance_id] = ConsoleRead(instance_id, "aGk=")
    assert read_console(site.cloud, site.project_id, instance_id) == "aGk="


def test_what_the_agent_could_not_read_is_unavailable(site: TestCloud) -> None:
    instance_id = placed(site)
    site.bus.consoles[instance_id] = ConsoleRead(instance_id, "", "no such file")
    with pytest.raises(Unavailable, match="no such file"):
        read_console(site.cloud, site.project_id, instance_id)


def test_an_agent_that_does_not_answer_is_named(site: TestCloud) -> None:
    with pytest.raises(AgentTimeout, match="'h1'"):
        read_console(site.cloud, site.project_id, placed(site))


def test_another_projects_console_is_not_there(site: TestCloud) -> None:
    with pytest.raises(InstanceNotFound):
        read_console(site.cloud, "another", placed(site))
