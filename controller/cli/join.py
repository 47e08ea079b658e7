"""`pileus join`: makes this machine a host of a cloud that runs elsewhere."""

import re
import socket
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from controller.bus.bus import Bus
from controller.cli.configuration_file import changed_text, new_text, write_private
from controller.cli.health import bus_problem
from controller.cli.join_request import Answer, checked_url, is_in_the_clear, send
from controller.cli.operator import Operator, pass_operator
from controller.conf import Settings, load_settings
from controller.domain.clock import system_clock
from controller.domain.errors import ConfigurationError
from controller.domain.host_facts import check_facts
from controller.domain.messages import PROBE_PENDING, HostReported
from controller.installed_services import GROUP

Values = dict[tuple[str, str], object]
_OF_A_CLOUD = ("pileus.db", "secret.key")


@click.command()
@click.argument("url", envvar="PILEUS_JOIN_URL")
@click.argument("token", envvar="PILEUS_JOIN_TOKEN")
@click.option("--name", default="", help="Name of this host in the cloud; else the machine's hostname.")
@click.option("--zone", default="", help="Availability zone; else the cloud's default.")
@click.option("--label", "labels", multiple=True, help="A label of this host; may be given again.")
@click.option("--driver", type=click.Choice(["libvirt", "simulated"]), help="What runs the guests; else libvirt.")
@click.option("--simulated", type=click.IntRange(1, 10000), help="So many simulated hosts; each uses the token once.")
@click.option("--mac-probe", default="", help="Program that prints the MAC addresses this host may carry.")
@click.option(
    "--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CA of the API's certificate."
)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Folder of the host's agent.")
@pass_operator
def join(operator: Operator, /, url: str, token: str, ca_file: Path | None, state: Path | None, **options: Any) -> None:
    """Make this machine a host of the cloud at URL, by a TOKEN of `pileus host token create`; `-` reads the token
    from standard input. Done again, it renews what the cloud knows of the host."""
    if state is not None:
        operator = Operator(state, None, operator.output)
    url, token = checked_url(url), _token(token)
    own = _own_values(operator, **options)
    before = _settings_before(operator, own)
    if is_in_the_clear(url):
        click.echo(f"warning: {url} is not encrypted: token and bus password can be read on the way", err=True)
    answer = _ask(url, token, _facts(before), ca_file)
    # The name is written down: the machine may be called otherwise one day.
    _write(operator, {**own, ("DEFAULT", "host"): before.general.host, **_told(answer)}, answer, before)
    _say(operator, before)


def _token(token: str) -> str:
    return sys.stdin.readline().strip() if token == "-" else token  # noqa: S105


def _own_values(
    operator: Operator,
    name: str,
    zone: str,
    labels: tuple[str, ...],
    driver: str | None,
    simulated: int | None,
    mac_probe: str,
) -> Values:
    """What this host says of itself, as far as it was said now."""
    if simulated and driver == "libvirt":
        raise click.UsageError("--simulated is for --driver simulated")
    driver = "simulated" if simulated else driver
    if mac_probe and driver == "simulated":
        raise click.UsageError("simulated hosts run no --mac-probe: name a file in [compute] simulated_macs_file")
    values: Values = {
        ("DEFAULT", "state_dir"): operator.folder,
        ("DEFAULT", "host"): name,
        ("compute", "driver"): driver,
        ("compute", "zone"): zone,
        ("compute", "labels"): ",".join(labels),
        ("compute", "simulated_hosts"): simulated,
        ("compute", "mac_probe"): mac_probe,
        ("network", "driver"): "none" if driver == "simulated" else None,
    }
    return {key: value for key, value in values.items() if value}


def _settings_before(operator: Operator, own: Values) -> Settings:
    """The settings with which the host describes itself. Raises ConfigurationError."""
    if taken := [name for name in _OF_A_CLOUD if (operator.folder / name).exists()]:
        reason = f"{operator.folder} holds a cloud of its own ({', '.join(taken)}): a host needs another --state"
        raise ConfigurationError(reason=reason)
    overrides = dict(own)
    if labels := own.get(("compute", "labels")):
        overrides["compute", "labels"] = str(labels).split(",")
    overrides["DEFAULT", "state_dir"] = str(operator.folder)
    settings = load_settings(operator.file if operator.exists else None, overrides)
    return replace(settings, general=replace(settings.general, host=settings.general.host or socket.gethostname()))


def _facts(settings: Settings) -> list[HostReported]:
    """What the agents of this machine would say. Raises ConfigurationError, InvalidParameter."""
    found = next(iter(entry_points(group=GROUP, name="compute")), None)
    if found is None:
        raise ConfigurationError(reason="the agent is not installed on this machine")
    facts: list[HostReported] = found.load()(settings, Bus(settings), system_clock).describe()
    for each in facts:
        check_facts(each, joining=True)
        if each.probe_error not in ("", PROBE_PENDING):
            raise ConfigurationError(reason=f"[compute] mac_probe: {each.probe_error}")
    # Not the default of this machine's configuration: the cloud has its own.
    return [replace(each, zone=settings.compute.zone) for each in facts]


def _ask(url: str, token: str, facts: list[HostReported], ca_file: Path | None) -> Answer:
    """One request a host: the last answer stands for all of them."""
    for each in facts:
        document = {
            "token": token,
            "name": each.host,
            "boot_id": each.boot_id,
            "hypervisor": each.hypervisor,
            "architecture": each.architecture,
            "vcpus": each.vcpus,
            "memory_mib": each.memory_mib,
            "disk_gib": each.disk_gib,
            "zone": each.zone,
            "labels": each.labels,
            "disk_backends": each.disk_backends,
            "images": each.images,
            "allowed_macs": each.allowed_macs,
            "probe_error": each.probe_error,
        }
        answer = send(url, document, ca_file)
        click.echo(f"{answer.host} {'is renewed' if answer.renewed else 'has joined'} cloud {answer.cloud_id}")
    return answer


def _told(answer: Answer) -> Values:
    """What the cloud says of itself."""
    network = {("network", name): answer.network.get(name) for name in ("trunk", "physical_network")}
    return {
        ("DEFAULT", "cloud_id"): answer.cloud_id,
        ("bus", "url"): answer.bus_url,
        ("api", "public_url"): answer.public_url,
        ("compute", "zone"): answer.zone,
        **{key: value for key, value in network.items() if value},
    }


def _write(operator: Operator, values: Values, answer: Answer, before: Settings) -> None:
    if not re.fullmatch(r"[0-9a-f]{8}", answer.cloud_id):
        raise ConfigurationError(reason=f"the cloud calls itself {answer.cloud_id!r}, which is no cloud's id")
    if operator.exists and before.general.cloud_id != answer.cloud_id:
        reason = f"{operator.file} is of cloud {before.general.cloud_id}: a host of another one needs another --state"
        raise ConfigurationError(reason=reason)
    text = changed_text(operator.file.read_text(), values) if operator.exists else new_text(_in_order(values))
    operator.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    operator.file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_private(operator.file, text)


def _in_order(values: Values) -> Values:
    return dict(sorted(values.items(), key=lambda v: v[0][0] != "DEFAULT"))


def _say(operator: Operator, before: Settings) -> None:
    if problem := bus_problem(operator.load()):
        click.echo(f"warning: the bus cannot be reached from here: {problem}", err=True)
    click.echo(f"configuration in {operator.file}; start the agent:")
    click.echo(f"  pileus {' '.join(operator.arguments)} serve compute")
    if operator.config and before.compute.driver == "libvirt":
        click.echo("or, with the units of etc/systemd:")
        click.echo("  systemctl enable --now pileus@compute")
