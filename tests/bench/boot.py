"""`bin/bench boot`: real guests by the hundred, through the EC2 API on RabbitMQ and PostgreSQL.

One request for all of them; then: how many are ACTIVE, have a DHCP lease, answer a ping, take an SSH login by key; how
long it took, against a floor in the same run: the same guests by a plain loop. Needs root, not KVM.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from tests.bench import enclosure, floor
from tests.bench.boot_run import CURVE, BootRun, thinned
from tests.bench.deployment import Deployment, Guests
from tests.bench.supervisor import Supervisor
from tests.bench.svg import line_chart

_CHECKOUT = Path(__file__).parents[2]


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the benchmark; the answer is its JSON."""
    options = _options(argv)
    if options.image is None:
        options.image = _tiny_image()
    _on_signals()
    with tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder:
        arguments = [*argv, "--image", str(options.image)]
        answer: dict[str, object] = json.loads(enclosure.run("tests.bench.boot", arguments, Path(folder)))
    return answer


def chart(result: Mapping[str, object]) -> str:
    """How many instances were where, over time."""
    rows, floor_rows = result["curve"], result["floor_curve"]
    assert isinstance(rows, list)
    assert isinstance(floor_rows, list)
    lines = {name: [(row[0], row[n]) for row in rows] for n, name in enumerate(CURVE) if n}
    if floor_rows:
        lines["floor answering"] = [(row[0], row[1]) for row in floor_rows]
    title = f"{result['specs']} real guests from one request, window {result['window']}"
    return line_chart(title, "seconds since the request", "instances", lines)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench boot", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--window", type=int, default=0, help="guests that boot at once; 0: measured by the agent")
    parser.add_argument("--memory-mib", type=int, default=32)
    parser.add_argument("--tcg-cache-mib", type=int, default=16)
    parser.add_argument("--image", type=Path, help="a qcow2 instead of the tiny image; give it its --memory-mib")
    parser.add_argument("--kill-broker", type=int, default=0, metavar="N", help="kill -9 it N times while guests boot")
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--deadline-s", type=float, default=0, help="default: 120, and 10 for each guest")
    options = parser.parse_args(argv)
    options.deadline_s = options.deadline_s or 120 + 10 * options.count
    return options


def _tiny_image() -> Path:
    """From the cache; the first time its kernel is built, which takes minutes."""
    made = subprocess.run([_CHECKOUT / "bin/tiny-image", "--cache"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.splitlines()[-1])


def _enclosed(options: argparse.Namespace) -> dict[str, object]:
    folder = enclosure.folder()
    (folder / "site").mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    guests = Guests(options.image, options.count, options.memory_mib, options.tcg_cache_mib, options.window)
    with Deployment(folder / "site", "postgresql", hosts=1, guests=guests) as site:
        run = BootRun(site, folder / "key", options.deadline_s)
        assert site.rabbitmq is not None
        with Supervisor(site.rabbitmq, kills=options.kill_broker, within_s=options.count) as supervisor:
            result = run.measure()
        result["broker_restarts"] = supervisor.restarts
    window = options.window or (os.cpu_count() or 1) + 1
    result |= {"window": options.window or "measured", "floor_window": window, "floor_s": None, "ratio": None}
    floor_curve: list[list[float]] = []
    if not options.no_floor:
        public_key = (folder / "key.pub").read_text()
        plan = floor.Plan(
            folder / "floor",
            options.image,
            options.count,
            window,
            options.memory_mib,
            options.tcg_cache_mib,
            public_key,
            options.deadline_s,
        )
        seen = floor.run(plan)
        result |= {"floor_s": seen.wall_s, "floor_ping": seen.answering}
        result["ratio"] = round(run.wall_s / seen.wall_s, 3)
        floor_curve = [[at_s, float(n)] for n, at_s in enumerate(seen.answered_s, 1)]
    return {**result, "curve": run.curve, "floor_curve": thinned(floor_curve)}


def _on_signals() -> None:
    """Unwind, and so put everything away, as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


if __name__ == "__main__":
    _on_signals()
    kept = os.dup(1)
    os.dup2(2, 1)  # standard output is the answer's alone
    answer = json.dumps(_enclosed(_options(sys.argv[1:])))
    os.write(kept, f"{answer}\n".encode())
