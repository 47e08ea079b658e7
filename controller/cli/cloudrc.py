"""`<state>/cloudrc`: what a shell sources to be a user of the cloud."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from controller.cli.configuration_file import write_private
from controller.conf.settings import Settings

_EXPORT = re.compile(r"export (\w+)=(.*)")


@dataclass(frozen=True)
class Credentials:
    """One user's, for every door."""

    access_key: str
    secret_key: str
    user: str
    password: str
    token: str


def read_credentials(path: Path) -> Credentials | None:
    """Those of an existing file; None when there is none, or one of them is missing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = {m[1]: "".join(shlex.split(m[2])) for m in map(_EXPORT.fullmatch, lines) if m}
    # Release 0.1 had user and password in one.
    old_user, _, old_password = found.get("ONE_AUTH_STRING", "").partition(":")
    user, password = found.get("PILEUS_USER", old_user), found.get("PILEUS_PASSWORD", old_password)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PILEUS_TOKEN")
    access_key, secret_key, token = (found.get(n, "") for n in names)
    if not (access_key and secret_key and user and password and token):
        return None
    return Credentials(access_key, secret_key, user, password, token)


def write_cloudrc(
    path: Path, settings: Settings, credentials: Credentials, programs: Path, *, in_state: bool = True
) -> None:
    """Write the file; ``programs`` is the folder where `aws` and `pileus` are, should they not be found otherwise.

    ``in_state``: `pileus` finds the configuration in the state folder.
    """
    url = settings.public_url
    variables = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_DEFAULT_REGION": settings.api.region,
        "AWS_REGION": settings.api.region,
        "AWS_ENDPOINT_URL_EC2": f"{url}/ec2/",
        "EC2_URL": f"{url}/ec2/",
        "EC2_ACCESS_KEY": credentials.access_key,
        "EC2_SECRET_KEY": credentials.secret_key,
        "PILEUS_URL": url,
        "PILEUS_USER": credentials.user,
        "PILEUS_PASSWORD": credentials.password,
        "PILEUS_TOKEN": credentials.token,
    }
    if in_state:
        variables["PILEUS_STATE"] = str(settings.state_dir)
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    folder = shlex.quote(str(programs))
    host = shlex.quote(url.split("://", 1)[1].rsplit(":", 1)[0].strip("[]"))
    text = f"""\
# The default user's credentials for this cloud. In a shell: . {shlex.quote(str(path))}
{exports}
# What would lead the clients to another cloud.
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_ENDPOINT_URL
# The API is not behind a proxy.
case ",${{no_proxy:-}}," in
*,{host},*) ;;
*) export no_proxy="${{no_proxy:+$no_proxy,}}"{host} NO_PROXY="${{NO_PROXY:+$NO_PROXY,}}"{host} ;;
esac
# An aws before 2.13 (Debian 12 has 2.9) knows no variable for its endpoint. An --endpoint-url given to it wins.
aws() {{ command aws --endpoint-url "$AWS_ENDPOINT_URL_EC2" "$@"; }}
if [ -n "${{BASH_VERSION:-}}" ]; then
    export -f aws
fi
# The clients that were installed with the cloud, behind those of the machine.
if ! (unset -f aws && command -v aws) >/dev/null 2>&1 || ! command -v pileus >/dev/null 2>&1; then
    export PATH="$PATH:"{folder}
fi
"""
    write_private(path, text)
