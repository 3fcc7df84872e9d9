"""Texts, compared by what can be counted in them: length, language, characters per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.drift.category import CategorySketch
from lodestore.drift.numeric import NumericSketch
from lodestore.drift.shares import NULL_LIMIT, share_signal
from lodestore.drift.verdict import Signal

__all__ = ["TextSketch", "guess_language"]

_SAMPLE = 1024  # texts whose words are looked at
_GLANCE = 400  # characters of a text that tell its language
_WORD_OR_MARK = r"[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]"
_SCRIPTS = (
    ("greek", 0x370, 0x400),
    ("cyrillic", 0x400, 0x530),
    ("hebrew", 0x590, 0x600),
    ("arabic", 0x600, 0x780),
    ("devanagari", 0x900, 0x980),
    ("thai", 0xE00, 0xE80),
    ("japanese", 0x3040, 0x3100),
    ("chinese", 0x4E00, 0xA000),
    ("korean", 0xAC00, 0xD7B0),
)
_SMALL_WORDS = {
    "english": "the and of to is that for with are this be from have not it was by on",
    "german": "der die das und ist nicht ein eine mit den von zu auf sich auch wird dem im",
    "french": "le les des et est une dans que pour pas du sur avec qui au ce sont aux",
    "spanish": "el los las y es una en que por con del para no se al como su más",
    "italian": "il gli di e è che una per con non della sono del nel anche le dei si",
    "portuguese": "o os as e é uma em que por com não do da para dos se ao mais",
    "dutch": "de het een en van is dat niet op met voor zijn te aan ook wordt bij er",
}
_STOP_WORDS = MappingProxyType({name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()})


@dataclass(frozen=True, slots=True, eq=False)
class TextSketch:
    """A column of texts as the sketches of what is counted in them; no text is kept."""

    rows: int
    nulls: int
    length: NumericSketch
    density: NumericSketch
    language: CategorySketch
    kind: ClassVar[str] = "text"

    @classmethod
    def of_column(cls, column: pa.ChunkedArray, *, seed: int = 0) -> TextSketch:
        """The sketch of an Arrow column of strings: lengths of all, words of up to 1,024 drawn by `seed`."""
        texts = column.cast(pa.large_string()).drop_null()
        drawn = texts
        if len(texts) > _SAMPLE:
            drawn = texts.take(np.sort(np.random.default_rng(seed).choice(len(texts), _SAMPLE, replace=False)))
        characters = pc.utf8_length(drawn).to_numpy()
        tokens = pc.count_substring_regex(drawn, pattern=_WORD_OR_MARK).to_numpy()
        density = characters[tokens > 0] / tokens[tokens > 0]
        languages = pa.chunked_array([pa.array(map(guess_language, drawn.to_pylist()), pa.string())])
        return cls(
            len(column),
            column.null_count,
            NumericSketch.of(pc.utf8_length(texts).to_numpy()),
            NumericSketch.of(density),
            CategorySketch.of_column(languages),
        )

    @property
    def values(self) -> int:
        """How many rows hold a text."""
        return self.rows - self.nulls

    def summary(self) -> dict[str, Any]:
        """Counts, mean length and density, and the languages guessed."""
        found: dict[str, Any] = {"rows": self.rows, "nulls": self.nulls}
        if not self.values:
            return found
        languages = {"languages": dict(self.language.counts), "length": self.length.summary()}
        return found | languages | {"characters_per_token": self.density.mean}

    def signals(self, current: TextSketch, *, min_rows: int) -> tuple[Signal, ...]:
        """How `current` differs from this baseline."""
        sides = (self.nulls, self.rows), (current.nulls, current.rows)
        parts = (
            _named("length", self.length.signals(current.length, min_rows=min_rows), 0.3),
            _named("characters_per_token", self.density.signals(current.density, min_rows=min_rows), 0.2),
            _named("language", self.language.signals(current.language, min_rows=min_rows), 0.3),
            share_signal("null_share", "null", *sides, limit=NULL_LIMIT, share=0.2),
        )
        return tuple(one for part in parts for one in part)

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON-ready values."""
        numbers = {"length": self.length.to_dict(), "density": self.density.to_dict()}
        return {"rows": self.rows, "nulls": self.nulls, "language": self.language.to_dict()} | numbers

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> TextSketch:
        """The sketch that `to_dict` wrote."""
        length, density = (NumericSketch.from_dict(found[name]) for name in ("length", "density"))
        return cls(found["rows"], found["nulls"], length, density, CategorySketch.from_dict(found["language"]))


def guess_language(text: str) -> str:
    """The script or, for Latin letters, the language whose small words occur most; enough to see a change.

    >>> guess_language("the roof of the house is not dry"), guess_language("das Dach ist nicht dicht")
    ('english', 'german')
    """
    start = text[:_GLANCE]
    foreign = [ord(letter) for letter in start if letter > "\u036f" and letter.isalpha()]
    if 2 * len(foreign) > sum(map(str.isalpha, start)):
        votes = {name: sum(low <= code < high for code in foreign) for name, low, high in _SCRIPTS}
        best = max(votes, key=votes.__getitem__)
        return best if votes[best] else "other script"
    words = start.lower().split()
    votes = {name: sum(word in known for word in words) for name, known in _STOP_WORDS.items()}
    best = max(votes, key=votes.__getitem__)
    return best if votes[best] else "unknown"


def _named(part: str, signals: tuple[Signal, ...], share: float) -> tuple[Signal, ...]:
    """The signals of a part, by its name and within its share of the budget."""
    total = sum(one.share for one in signals)
    return tuple(replace(one, measure=f"{part}_{one.measure}", share=share * one.share / total) for one in signals)
