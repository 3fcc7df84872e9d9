"""Tokens: how many a text has, counted once for each text that comes again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lodestore.errors import SettingsError

__all__ = ["CountTokens", "TokenCounter", "counter_of_file"]

CountTokens = Callable[[Sequence[str]], list[int]]
# Chunks that are cited often are counted once; whole prompts are too long, and too many, to be kept.
_KEPT = 8_192
_LONGEST = 4_000


class TokenCounter:
    """Counts by one tokenizer and keeps what it counted; threads may share it.

    >>> counter = TokenCounter(lambda texts: [len(text.split()) for text in texts])
    >>> counter(["one two", "three"])
    [2, 1]
    """

    def __init__(self, count: CountTokens) -> None:
        self._count = count
        self._known: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        known = self._known
        missing = [text for text in texts if text not in known]
        if not missing:
            return [known[text] for text in texts]
        new = dict(zip(missing, self._count(missing), strict=True))
        counts = [new[text] if text in new else known[text] for text in texts]
        if len(known) > _KEPT:
            self._known = {}
        self._known.update((text, n) for text, n in new.items() if len(text) <= _LONGEST)
        return counts


def counter_of_file(file: Path) -> TokenCounter:
    """A counter by the tokenizer of a `tokenizer.json`; special tokens count, as a model would see them."""
    if not file.is_file():
        message = f"context.tokenizer: {file} is no file; name a tokenizer.json, or a declared model such as minilm@1"
        raise SettingsError(message)
    return TokenCounter(_Lazy(file))


class _Lazy:
    """A tokenizer that is read when something is counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> list[int]:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(self._file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self._tokenizer = tokenizer
        return [len(one.ids) for one in self._tokenizer.encode_batch_fast(list(texts))]
