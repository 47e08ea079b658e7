"""`pileus user`: people and programs, and their keys."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.db.models import User
from controller.operations.accounts import projects, users
from controller.operations.cloud import Transaction

_FIELDS = ("id", "name", "project_id", "enabled", "created_at")


@click.group()
def user() -> None:
    """People and programs, and their keys."""


@user.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List all users."""
    print_rows(operator, [row(u, *_FIELDS) for u in operator.read(users.list_users)], _FIELDS)


@user.command()
@click.argument("name")
@click.option("--project", required=True, help="Project that the user belongs to, by name or account number.")
@click.option("--password", help="For XML-RPC; else one is made up and shown this once.")
@output_option
@pass_operator
def create(operator: Operator, name: str, project: str, password: str | None) -> None:
    """Create a user with an access key and a token; the secrets are shown this once."""

    def make(tx: Transaction) -> dict[str, object]:
        chosen = password or tx.ids.secret(24)
        made = users.create_user(tx, name, projects.get_project(tx, project).id, chosen)
        key, secret = users.create_access_key(tx, made.id)
        shown: dict[str, object] = row(made, *_FIELDS)
        if not password:
            shown["password"] = chosen
        return {**shown, "access_key": key.id, "secret_key": secret, "token": users.issue_token(tx, made)}

    print_row(operator, operator.write(make))


@user.command()
@click.argument("name")
@pass_operator
def disable(operator: Operator, name: str) -> None:
    """Keep a user out, with all its keys."""
    _set_enabled(operator, name, enabled=False)


@user.command()
@click.argument("name")
@pass_operator
def enable(operator: Operator, name: str) -> None:
    """Let a user in again."""
    _set_enabled(operator, name, enabled=True)


@user.command()
@click.argument("name")
@output_option
@pass_operator
def token(operator: Operator, name: str) -> None:
    """Make a new token for REST; the old one is no longer valid."""
    print_row(operator, {"token": operator.write(lambda tx: users.issue_token(tx, users.get_user(tx, name)))})


@user.group()
def key() -> None:
    """Access keys, which sign EC2 requests."""


@key.command("list")
@click.argument("name")
@output_option
@pass_operator
def list_keys(operator: Operator, name: str) -> None:
    """List the access keys of a user."""
    found = operator.read(lambda tx: users.list_access_keys(tx, users.get_user(tx, name).id))
    print_rows(operator, [row(k, "id", "enabled", "created_at") for k in found], ("id", "enabled", "created_at"))


@key.command("create")
@click.argument("name")
@output_option
@pass_operator
def create_key(operator: Operator, name: str) -> None:
    """Make an access key for a user; its secret is shown this once."""
    made, secret = operator.write(lambda tx: users.create_access_key(tx, users.get_user(tx, name).id))
    print_row(operator, {"access_key": made.id, "secret_key": secret})


@key.command("disable")
@click.argument("access_key")
@pass_operator
def disable_key(operator: Operator, access_key: str) -> None:
    """Accept no more requests that are signed with this key."""
    operator.write(lambda tx: users.disable_access_key(tx, access_key))
    click.echo(f"{access_key} is disabled")


def _set_enabled(operator: Operator, name: str, *, enabled: bool) -> None:
    changed: User = operator.write(lambda tx: users.set_enabled(tx, name, enabled))
    click.echo(f"{changed.name} is {'enabled' if enabled else 'disabled'}")
