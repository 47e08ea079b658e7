"""`pileus image`: the catalogue of images."""

import hashlib
from pathlib import Path

import click

from controller.cli.init import PROJECT
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.operations.accounts import projects
from controller.operations.cloud import Transaction
from controller.operations.images import images, pruning, views
from controller.operations.images.views import ImageView

_FIELDS = (
    "id",
    "name",
    "project_id",
    "public",
    "state",
    "format",
    "size_bytes",
    "virtual_size_bytes",
    "sha256",
    "architecture",
    "hypervisor",
    "min_memory_mib",
    "min_disk_gib",
    "required_labels",
    "description",
    "created_at",
)
_STORED = ("name", "size_bytes", "needed_by")
_COLUMNS = ("id", "name", "project_id", "public", "format", "size_bytes", "virtual_size_bytes", "created_at")


@click.group()
def image() -> None:
    """The catalogue of images."""


@image.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name of the image.")
@click.option("--project", default=PROJECT, show_default=True, help="Project that owns it, by name or account number.")
@click.option("--public/--private", default=True, show_default=True, help="Whether every project may use it.")
@click.option("--description", default="", help="What it is.")
@click.option("--architecture", default="x86_64", show_default=True, help="Processor that it runs on.")
@click.option("--hypervisor", default="", help="kvm, qemu or xen, if it runs on one only.")
@click.option("--min-memory-mib", type=click.IntRange(0), default=0, help="Least memory that it runs in.")
@click.option("--min-disk-gib", type=click.IntRange(0), default=0, help="Least disk that it runs on.")
@click.option("--label", "labels", multiple=True, help="A label that its hosts must have; may be given again.")
@click.option("--if-missing", is_flag=True, help="Show the one with this name and content, if there is one already.")
@output_option
@pass_operator
def import_(
    operator: Operator,
    file: Path,
    name: str,
    project: str,
    public: bool,
    description: str,
    architecture: str,
    hypervisor: str,
    min_memory_mib: int,
    min_disk_gib: int,
    labels: tuple[str, ...],
    if_missing: bool,
) -> None:
    """Check an image file (qcow2 or raw), copy it into the store and register it."""
    owner = operator.read(lambda tx: projects.get_project(tx, project)).id
    found = operator.read(lambda tx: _existing(tx, owner, name, file)) if if_missing else None
    made = found or images.import_image(
        operator.cloud,
        file,
        name=name,
        project_id=owner,
        public=public,
        description=description,
        architecture=architecture,
        hypervisor=hypervisor,
        min_memory_mib=min_memory_mib,
        min_disk_gib=min_disk_gib,
        required_labels=labels,
    )
    print_row(operator, row(made, *_FIELDS))


@image.command("list")
@click.option("--project", help="Only those that this project may use.")
@output_option
@pass_operator
def list_(operator: Operator, project: str | None) -> None:
    """List the images that can be booted."""

    def found(tx: Transaction) -> list[ImageView]:
        return list(views.list_images(tx, projects.get_project(tx, project).id if project else None))

    print_rows(operator, [row(i, *_FIELDS) for i in operator.read(found)], _COLUMNS)


@image.command()
@click.argument("image_id")
@output_option
@pass_operator
def show(operator: Operator, image_id: str) -> None:
    """Show an image."""
    print_row(operator, row(operator.read(lambda tx: images.get_image(tx, None, image_id)), *_FIELDS))


@image.command()
@click.argument("image_id")
@pass_operator
def deregister(operator: Operator, image_id: str) -> None:
    """Take an image out of the catalogue; instances that were made of it stay."""
    operator.write(lambda tx: images.deregister(tx, None, image_id))
    click.echo(f"{image_id} is deregistered")


@image.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@output_option
@pass_operator
def prune(operator: Operator, dry_run: bool) -> None:
    """Remove the files of deregistered images that nothing needs, from this machine's store and the hosts' caches.

    The API does so by itself for its store, the controller for the hosts. Files that no image has go with this command
    alone: look with --dry-run first, where the database was restored from a backup.
    """
    found = pruning.prune(operator.cloud, unknown=True, dry_run=dry_run)
    gone = "would be removed" if dry_run else "removed"
    rows = [{**row(f, *_STORED), "result": "kept" if f.needed_by else gone} for f in found]
    print_rows(operator, rows, (*_STORED, "result"))
    if not dry_run:
        operator.write(pruning.prune_caches)


def _existing(tx: Transaction, project_id: str, name: str, file: Path) -> ImageView | None:
    named = [i for i in views.list_images(tx, project_id) if i.project_id == project_id and i.name == name]
    if not named:
        return None
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return next((i for i in named if i.sha256 == sha256), None)
