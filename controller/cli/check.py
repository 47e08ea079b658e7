"""`pileus check`: whether a configuration fits the engines and the machine that it is to run on."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from controller.cli.checks import bus, database, files, machine
from controller.cli.checks import services as running
from controller.cli.checks.item import Probe, Status, Subject, run_probes
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_json, printable
from controller.installed_services import service_names

_WITH_DATABASE = frozenset({"api", "scheduler", "controller", "network", "metadata"})


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--processes", default="", help="How many processes the site has: api=2,scheduler=2; else one of each.")
@output_option
@pass_operator
def check(operator: Operator, services: tuple[str, ...], processes: str) -> None:
    """Verify the configuration against database, broker and this machine, for the services that run here (else all).

    Exit status 1 when something fails.
    """
    known = service_names()
    for name in services:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="SERVICE")
    subject = Subject(operator.settings, services or known, _count(processes, known), operator.file)
    items = run_probes(probes_for(subject), subject)
    if operator.output == "json":
        print_json([asdict(i) for i in items])
    else:
        width = max(len(i.name) for i in items)
        for i in items:
            advice = f"\n{'':{7 + width}}{i.advice}" if i.advice else ""
            click.echo(f"{i.status:4}  {i.name:{width}} {printable(i.seen)}{advice}")
    sys.exit(1 if any(i.status is Status.FAIL for i in items) else 0)


def probes_for(subject: Subject) -> Mapping[str, Probe]:
    """What these services need, by name."""
    settings, here = subject.settings, set(subject.services)
    found: dict[str, Probe] = {"options": files.options} if subject.file else {}
    if here & _WITH_DATABASE:
        found |= {"database": database.probe, "secret key file": files.key_file, "connection pool": files.pool}
    found |= {
        "running services": running.probe,
        "bus": bus.probe,
        "state folder": files.state_dir,
        "open files": files.file_limit,
    }
    if "api" in here:
        found |= {"image store": files.image_store, "API port": machine.api_port}
    real_network = settings.network.driver == "linux"
    real_hosts = "compute" in here and settings.compute.driver == "libvirt"
    if "network" in here and real_network:
        found |= {
            "network programs": machine.network_programs,
            "forwarding": machine.forwarding,
            "firewall": machine.firewall,
            "DNS port": machine.dns_port,
        }
    if "metadata" in here and real_network:
        found["metadata port"] = machine.metadata_port
    if ("network" in here and real_network) or real_hosts:
        found["trunk"] = machine.trunk
    if real_hosts:
        found |= {"compute programs": machine.compute_programs, "libvirt": machine.libvirt, "KVM": machine.kvm}
    return found


def _count(text: str, known: Sequence[str]) -> Mapping[str, int]:
    counts = dict.fromkeys(known, 1)
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = re.fullmatch(r"([a-z]+)=(\d{1,4})", part)
        if found is None or found[1] not in known:
            raise click.BadParameter(f"{part!r} is not SERVICE=NUMBER", param_hint="--processes")
        counts[found[1]] = int(found[2])
    return counts
