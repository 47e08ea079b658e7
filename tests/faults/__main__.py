"""Write ``docs/faults.md``, or say whether it is as the tests say: ``python -m tests.faults [--write]``."""

import argparse
import sys

from tests.faults.table import DOCUMENT, document


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table; without it, only compare")
    text = document()
    if parser.parse_args(argv).write:
        DOCUMENT.write_text(text)
        return 0
    current = DOCUMENT.exists() and DOCUMENT.read_text() == text
    print(f"{DOCUMENT.name} is {'as the tests say' if current else 'out of date: python -m tests.faults --write'}")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
