"""A real Feast repository comes over, its features are run, and both sides are asked for the same values.

LODESTORE_FEAST_PYTHON names the Python that has Feast; without it that of `make bench-feast` is taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.feast.data import build

ROOT = Path(__file__).parents[2]
FEAST = Path(os.environ.get("LODESTORE_FEAST_PYTHON") or ROOT / ".venv-feast" / "bin" / "python")
APPLY = """
import sys
sys.path.insert(0, ".")
from datetime import datetime, timezone
from feast import FeatureStore
import definitions as all_
store = FeatureStore(repo_path=".")
store.apply([all_.driver, all_.customer, all_.hourly, all_.profile, all_.trips])
store.materialize(datetime(2026, 2, 1, tzinfo=timezone.utc), datetime(2026, 4, 1, tzinfo=timezone.utc))
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FEAST.is_file(),
        reason=f"{FEAST} is not there; make bench-feast installs Feast, or set LODESTORE_FEAST_PYTHON",
    ),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("feast") / "repository", drivers=60, hours=150)
    subprocess.run([FEAST, "-c", APPLY], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def lodestore(tmp_path_factory):
    """Run a command in a new project; returns what it printed as JSON."""
    folder = tmp_path_factory.mktemp("mine") / "project"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LODESTORE_")}
    environment["PYTHONPATH"] = str(ROOT / "src")

    def run(*words, expect=0):
        command = [sys.executable, "-m", "lodestore", *map(str, words), "--json"]
        place = folder if folder.exists() else folder.parent
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == expect, done.stderr[-3000:]
        return json.loads(done.stdout)

    run("init", folder)
    return run


def test_values_of_feast_and_ours_are_the_same_or_explained(repository, lodestore):
    came = lodestore("import", "feast", repository, "--python", FEAST)
    again = lodestore("import", "feast", repository, "--python", FEAST)
    ran = lodestore("run", "features")
    proven = lodestore("import", "feast", repository, "--python", FEAST, "--verify", "--rows", "1000")

    assert came["counts"]["carried"] > 20
    assert again["written"] == []
    assert ran["jobs"][0]["success"]
    views = {(one["view"], one["kind"]): one for one in proven["views"]}
    assert proven["ok"]
    assert sum(one["different"] + one["refused"] for one in views.values()) == 0
    assert views["driver_hourly_stats", "historical"]["rows"] >= 1_000
    assert views["trips", "historical"]["present"] > 300
    assert {"driver_hourly_stats", "trips"} <= {view for view, kind in views if kind == "online"}
    reasons = {reason for one in views.values() for reason in one["explained"]}
    assert reasons <= {"lost", "tie", "late", "rounded", "expired"}
    assert views["customer_profile", "historical"]["explained"].keys() <= {"lost"}


def test_the_recorded_description_is_what_this_feast_says(repository):
    recorded = json.loads((ROOT / "tests" / "feast" / "described.json").read_text(encoding="utf-8"))
    order = json.dumps({"act": "describe", "repository": str(repository)})
    script = ROOT / "src" / "lodestore" / "scaffold" / "feast_side.py"

    done = subprocess.run([FEAST, script], input=order, capture_output=True, text=True, check=True)

    told = json.loads(done.stdout)
    if told["feast"] != recorded["feast"]:
        pytest.skip(f"recorded by Feast {recorded['feast']}, this is {told['feast']}")
    assert json.dumps(told, sort_keys=True) == json.dumps(recorded, sort_keys=True)


def test_a_repository_that_does_not_load_is_told_with_its_line(tmp_path, lodestore):
    (tmp_path / "feature_store.yaml").write_text("project: p\nregistry: r.db\nprovider: local\n", encoding="utf-8")
    (tmp_path / "features.py").write_text("\n\nimport no_such_package\n", encoding="utf-8")

    told = lodestore("import", "feast", tmp_path, "--python", FEAST, expect=2)

    assert "no_such_package" in told["error"]["message"]
    assert "features.py, line 3" in told["error"]["message"]


def test_a_registry_tells_what_no_file_does(repository, lodestore, tmp_path):
    settings = (repository / "feature_store.yaml").read_text().replace("data/", f"{repository}/data/")
    (tmp_path / "feature_store.yaml").write_text(settings, encoding="utf-8")

    told = lodestore("import", "feast", tmp_path, "--python", FEAST, "--out", tmp_path / "mine.py")

    assert told["told_by"] == "registry"
    text = (tmp_path / "mine.py").read_text()
    assert all(f'"{name}"' in text for name in ("driver_hourly_stats", "customer_profile", "trips"))
