"""The serial console of an instance, read from its host's agent: the one operation that waits for an agent."""

from controller.bus.sender import NoReceiverError
from controller.domain.errors import AgentAway, AgentTimeout, Unavailable
from controller.domain.messages import ConsoleRead, ReadConsole
from controller.operations.cloud import Cloud
from controller.operations.instances.views import get_instance


def read_console(cloud: Cloud, project_id: str | None, instance_id: str) -> str:
    """The end of an instance's console in base64; empty without a host. Waits ``[api] console_timeout_s`` at most.

    Raises:
        InstanceNotFound. AgentAway, AgentTimeout: its host's agent did not answer. Unavailable: it could not read it.
    """
    host = cloud.read(lambda tx: get_instance(tx, project_id, instance_id)).host_id
    if not host:
        return ""
    timeout_s = cloud.settings.api.console_timeout_s
    try:
        answer = cloud.bus.call(ReadConsole(host, instance_id), timeout_s)
    except NoReceiverError as error:
        raise AgentAway(host=host) from error
    except TimeoutError as error:
        raise AgentTimeout(host=host, timeout_s=timeout_s) from error
    if not isinstance(answer, ConsoleRead) or answer.error:
        reason = answer.error if isinstance(answer, ConsoleRead) else f"the agent answered {answer.KIND}"
        raise Unavailable(what="The console", reason=reason)
    return answer.data
