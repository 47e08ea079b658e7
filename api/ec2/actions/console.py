"""GetConsoleOutput."""

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.identifiers import instance_ids
from controller.operations.instances.console import read_console


def get_console_output(context: Context, params: Parameters) -> Result:
    """Operations and EC2 both have the console in base64.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html
    """
    (instance_id,) = instance_ids([params["InstanceId"]])
    output = read_console(context.cloud, context.project_id, instance_id)
    return {"InstanceId": instance_id, "Timestamp": context.cloud.clock(), "Output": output or None}
