"""GetConsoleOutput: the one action that waits for an agent, for a bounded time."""

from api.ec2 import queries
from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.identifiers import instance_ids, require_all
from controller.bus.bus import NoReceiverError
from controller.domain.errors import AgentAway, AgentTimeout, Unavailable
from controller.domain.messages import ConsoleRead, ReadConsole


def get_console_output(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html"""
    ids = instance_ids([params["InstanceId"]])
    found = context.cloud.read(lambda tx: queries.instances(tx, context.project_id, ids=ids))
    require_all(ids, (i.row.id for i in found))
    host = found[0].row.host_id
    output = _read(context, host, ids[0]) if host else ""
    return {"InstanceId": ids[0], "Timestamp": context.cloud.clock(), "Output": output or None}


def _read(context: Context, host: str, instance_id: str) -> str:
    """The end of the console in base64, as the agent and EC2 both have it."""
    timeout_s = context.cloud.settings.api.console_timeout_s
    try:
        answer = context.cloud.bus.call(ReadConsole(host, instance_id), timeout_s)
    except NoReceiverError as error:
        raise AgentAway(host=host) from error
    except TimeoutError as error:
        raise AgentTimeout(host=host, timeout_s=timeout_s) from error
    if not isinstance(answer, ConsoleRead) or answer.error:
        reason = answer.error if isinstance(answer, ConsoleRead) else f"the agent answered {answer.KIND}"
        raise Unavailable(what="The console", reason=reason)
    return answer.data
