"""Puts a misreport bundle among the regression tests.

python tests/misreports.py F.zip --name N --expect VERDICT --why T
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "assets" / "misreports"


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "datasets")]
    from detector.verdict import Verdict
    from server.bundle import keep_as_test

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--name", required=True, help="what went wrong, in_snake_case")
    parser.add_argument("--expect", required=True, choices=[each.value for each in Verdict])
    parser.add_argument("--why", required=True, help="why this verdict would be right")
    asked = parser.parse_args()
    print(keep_as_test(asked.bundle, FOLDER, asked.name, asked.expect, asked.why))  # noqa: T201


if __name__ == "__main__":
    main()
