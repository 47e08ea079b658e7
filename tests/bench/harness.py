"""Runs one benchmark: ``python -m tests.bench.harness NAME [OPTIONS]``, what ``bin/bench`` calls.

A benchmark is a file of this folder with ``main(argv) -> dict``, and with ``chart(result) -> str`` (an SVG) if it has
something to draw. The last line of standard output is the JSON object; all that is printed meanwhile, by servers and
other programs too, goes to standard error.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(f.stem for f in FOLDER.glob("*.py") if f.stem != "harness" and "\ndef main(argv" in f.read_text())


def run(argv: Sequence[str]) -> int:
    """Run what the command line names; answers with the exit status."""
    parser = argparse.ArgumentParser(prog="bin/bench", usage="bin/bench NAME [OPTIONS...]", add_help=False)
    parser.add_argument("--json", action="store_true", help="no table for people")
    parser.add_argument("--chart", type=Path, help="write an SVG to this file")
    options, rest = parser.parse_known_args(argv)
    if not rest or rest[0] not in names():
        print(
            f"usage: bin/bench NAME [OPTIONS...] [--json] [--chart FILE]\nNAME: {', '.join(names())}", file=sys.stderr
        )
        return 2
    bench = importlib.import_module(f"tests.bench.{rest[0]}")
    with _stdout_kept() as answer:
        begin = time.monotonic()
        result = {"bench": rest[0], **bench.main(rest[1:]), "machine": machine()}
        result.setdefault("wall_s", round(time.monotonic() - begin, 1))  # one that times itself says so
        if options.chart:
            options.chart.write_text(bench.chart(result))
        if not options.json:
            print(table(result), file=sys.stderr)
        print(json.dumps(result), file=answer)
    return 0


def machine() -> dict[str, object]:
    """What was measured on."""
    models = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "memory_mib": memory[0] if memory else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def median_s(work: Callable[[], object], repeat: int) -> float:
    """The median time of doing it so many times."""
    return statistics.median(timed_s(work) for _ in range(repeat))


def timed_s(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def table(result: Mapping[str, object]) -> str:
    """A line for each figure, nested ones indented."""
    return "\n".join(_rows(result, ""))


def _rows(result: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _rows(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{key}:"
            yield from (f"{indent}  {item}" for item in value)
        else:
            yield f"{indent}{key}: {value}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def _stdout_kept() -> Iterator[IO[str]]:
    """Standard output for the answer alone; all other output goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w") as answer:
            yield answer
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
