"""Describes the repository beside this file by a real Feast again: python tests/feast/record.py .venv-feast/bin/python."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.feast.data import build

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "src" / "lodestore" / "scaffold" / "feast_side.py"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = build(Path(folder) / "repository")
        order = json.dumps({"act": "describe", "repository": str(repository)})
        done = subprocess.run([sys.argv[1], SCRIPT], input=order.encode(), capture_output=True, check=True)
    told = json.loads(done.stdout)
    (HERE / "described.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
