"""Released code, run beside the current one: the wheel of the release, unpacked, in front of everything else."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WHEELS = Path(__file__).parent


def unpacked(release: str, folder: Path) -> Path:
    """The code of a release, to be put on PYTHONPATH. The packages that it uses are those of the current one."""
    target = folder / f"pileus-{release}"
    if not target.exists():
        with zipfile.ZipFile(_WHEELS / f"pileus-{release}-py3-none-any.whl") as wheel:
            wheel.extractall(target)
    return target


def answer_of(code: Path, program: str, question: object = None, arguments: Sequence[str] = ()) -> Any:
    """Run a program on released code: JSON in on its standard input, JSON out on its standard output."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(code)},
        cwd=code,
    )
    if done.returncode:
        raise AssertionError(done.stderr[-3000:])
    return json.loads(done.stdout)
