"""The service itself: its port, its other paths, and the stock command line client."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.service import ApiService
from controller.domain.errors import ConfigurationError
from controller.operations.images.urls import image_url
from tests.labs.api_site import Site, run
from tests.labs.ec2_wire import plain


def aws(site: Site, *arguments: str) -> Any:
    program = Path(sys.executable).with_name("aws")
    done = subprocess.run(
        [program, "ec2", "--output", "json", *arguments],
        env={**os.environ, **site.environment(), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else done.stderr


def test_the_stock_command_line_client(site: Site) -> None:
    launched = aws(site, "run-instances", "--image-id", site.image, "--instance-type", "p1.tiny", "--count", "5")
    assert len(launched["Instances"]) == 5
    site.work()
    shown = aws(site, "describe-instances", "--filters", "Name=instance-state-name,Values=running")
    assert len(shown["Reservations"][0]["Instances"]) == 5
    assert "InvalidAMIID.Malformed" in aws(site, "run-instances", "--image-id", "nonsense")


def test_a_taken_port_is_named(site: Site) -> None:
    settings = replace(site.settings, api=replace(site.settings.api, listen_port=site.service.port))
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{site.service.port}.*in use"):
        ApiService(replace(site.cloud, settings=settings)).start()


def test_stopping_is_quick_and_final(site: Site) -> None:
    began = time.monotonic()
    site.service.stop()
    assert time.monotonic() - began < 3
    with pytest.raises(ConnectionRefusedError):
        plain(site, "GET", "/healthz")
    site.service.stop()


def test_health(site: Site) -> None:
    assert plain(site, "GET", "/healthz")[0] == 200
    site.cloud.database.close()
    folder = Path(site.settings.state_dir)
    (folder / "pileus.db").rename(folder / "gone.db")
    (folder / "pileus.db").mkdir()
    status, headers, body = plain(site, "GET", "/healthz")
    assert (status, headers["Content-Type"]) == (503, "application/json")
    assert "unable to open" in json.loads(body)["database"]
    status, _, body = plain(site, "GET", "/metrics")
    assert (status, b"pileus_database_up 0.0" in body) == (200, True)


def test_metrics(site: Site) -> None:
    run(site, site.client(), 3)
    text = plain(site, "GET", "/metrics")[2].decode()
    assert 'pileus_api_requests_total{action="RunInstances",status="200"} 1.0' in text
    assert 'pileus_api_request_seconds_count{action="RunInstances"} 1.0' in text
    assert 'pileus_instances{state="REQUESTED"} 3.0' in text
    assert 'pileus_hosts{state="up"} 1.0' in text


def test_images_are_served_by_signed_url(site: Site) -> None:
    sha256 = "ab" * 32
    site.settings.image_store.mkdir()
    (site.settings.image_store / f"{sha256}.qcow2").write_bytes(b"q" * 3_000_000)
    (site.settings.image_store / "notes.txt").write_text("x")

    def get(url: str) -> tuple[int, bytes]:
        parts = urlsplit(url)
        status, headers, body = plain(site, "GET", f"{parts.path}?{parts.query}")
        assert int(headers["Content-Length"]) == len(body)
        return status, body

    good = image_url(site.settings, sha256, "qcow2", site.now())
    assert get(good) == (200, b"q" * 3_000_000)
    assert get(image_url(site.settings, sha256, "raw", site.now()))[0] == 404
    assert get(good.replace(sha256, "cd" * 32))[0] == 403
    assert get(good.partition("?")[0])[0] == 403
    assert get(good[:-1] + ("0" if good[-1] != "0" else "1"))[0] == 403
    assert get(good.replace("signature=", "signature=%C3%BC"))[0] == 403
    for name in ("notes.txt", "..%2fsecret.key", f"{sha256}.vmdk", f"{sha256.upper()}.qcow2", "%2e%2e/secret.key"):
        assert get(f"/images/{name}?{urlsplit(good).query}")[0] == 404
    site.offset = timedelta(hours=2)
    assert get(good)[0] == 403
