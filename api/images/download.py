"""Serves stored image files to agents, by the signed URLs that ``controller.operations.images.urls`` makes."""

import re

from flask import Request, Response, send_file

from controller.domain.errors import NotAuthorized, NotFound
from controller.operations.cloud import Cloud
from controller.operations.images.images import stored_file
from controller.operations.images.urls import check_image_url

_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(?P<format>qcow2|raw)", re.ASCII)
_EXPIRES = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)


def download(cloud: Cloud, name: str, request: Request) -> Response:
    """The file of this name, ``<sha256>.<format>``.

    Raises:
        NotAuthorized: the URL was not given out by this cloud, or is not valid any more.
        NotFound: there is no such file, or it could not be one's name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFound(kind="image file", id=name[:100])
    expires, signature = request.args.get("expires", ""), request.args.get("signature", "")
    if not _EXPIRES.fullmatch(expires) or not _SIGNATURE.fullmatch(signature):
        raise NotAuthorized(action="read this image: the URL is not signed")
    sha256, fmt = found["sha256"], found["format"]
    check_image_url(cloud.settings, sha256, fmt, int(expires), signature, cloud.clock())
    path = stored_file(cloud.settings, sha256, fmt)
    if not path.is_file():
        raise NotFound(kind="image file", id=name)
    return send_file(path.absolute(), mimetype="application/octet-stream", conditional=False, etag=False)
