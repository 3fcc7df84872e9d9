"""A TypeScript client generated from the server's description: its types hold, and it talks to the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.served import build, serving

SOURCES = Path(__file__).parent.parent / "typescript"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed, and a TypeScript client needs it")
def test_a_client_generated_from_the_description_compiles_and_calls_the_server(tmp_path):
    folder = tmp_path / "client"
    folder.mkdir()
    for name in ("package.json", "package-lock.json", "tsconfig.json", "call.ts"):
        shutil.copy(SOURCES / name, folder / name)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout

    run("npm", "ci", "--no-audit", "--no-fund")
    with serving(build(tmp_path / "project")) as (url, _):
        run("node_modules/.bin/openapi-typescript", f"{url}/openapi.json", "-o", "schema.d.ts")
        run("node_modules/.bin/tsc")
        told = json.loads(run("node", "out/call.js", url))

    assert told == {
        "pushed": 1,
        "totals": ["11", None],
        "statuses": ["PRESENT", "NOT_FOUND"],
        "title": "Refunds",
        "template": "qa_basic",
        "tokens": True,
        "content": True,
        "refused": "urn:lodestore:error:unknown-feature",
    }
