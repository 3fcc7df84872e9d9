"""Chunks: pieces of a document that fit the model, cut by a library, with ids that survive edits elsewhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lodestore.errors import DeclarationError
from lodestore.models import Identity
from lodestore.wire import digest

if TYPE_CHECKING:
    from lodestore.documents import Document

__all__ = ["Chunk", "ChunkOptions", "Chunker", "embedded_text", "whole"]

# Room for the title that is embedded in front of each chunk, and for the tokens that the model adds.
_HEADROOM = 24
_SHORTEST = 16
# The chunker of features that are embedded whole, such as titles.
WHOLE = "whole"
# The chunker of models whose vectors come with the documents: one row a document, nothing is cut.
READY = "ready"
# The chunker of features whose vectors come with events, such as what users ask: nothing of a document is embedded.
EVENTS = "events"


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """`[chunks]`: how long a chunk may be, in tokens of the model."""

    size: int = 200

    def __post_init__(self) -> None:
        if self.size < _SHORTEST:
            message = f"chunks.size {self.size} is too short to mean anything; give at least {_SHORTEST}"
            raise DeclarationError(message)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: `text == content[start:end]`, counted in characters."""

    chunk_id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    text: str
    n_tokens: int
    truncated: bool
    content_hash: str


def embedded_text(title: str, text: str) -> str:
    """What is embedded for a piece of text: the title, a newline, the text."""
    return f"{title}\n{text}" if title else text


def hash_text(text: str) -> str:
    """SHA-256 of the text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _chunk_id(document_id: str, chunker: str, content_hash: str, occurrence: int) -> str:
    return digest([document_id, chunker, content_hash, occurrence])[:24]


class Chunker:
    """Cuts texts by the tokens of one model. Two with the same id cut alike, on every machine."""

    def __init__(self, identity: Identity, options: ChunkOptions) -> None:
        self._identity = identity
        self.options = options
        self.model = identity.label
        limit = identity.max_tokens
        self.size = options.size if limit is None else max(_SHORTEST, min(options.size, limit - _HEADROOM))
        self.limit = limit
        self._prompt = identity.parts.get("prompts", {}).get("document", "")
        self.id = digest(
            {
                "splitter": "semantic-text-splitter",
                "tokenizer": identity.parts.get("tokenizer", "words"),
                "size": self.size,
                "limit": limit,
            }
        )[:8]

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - the tokenizers package has no types
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._identity.tokenizer))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _splitter(self) -> Any:  # noqa: ANN401 - no types either
        from semantic_text_splitter import TextSplitter

        # Nothing is trimmed: the chunks of a document, put together, are the document.
        if self._identity.tokenizer is None:
            return TextSplitter.from_callback(lambda text: len(text.split()), self.size, trim=False)
        return TextSplitter.from_huggingface_tokenizer(self._tokenizer, self.size, trim=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model is given for each text, its document prompt included, before it cuts."""
        whole = [self._prompt + text for text in texts]
        if self._identity.tokenizer is None:
            return [len(text.split()) for text in whole]
        return [len(one.ids) for one in self._tokenizer.encode_batch_fast(whole)]

    def cut(self, document: Document) -> list[Chunk]:
        """The chunks of a document, in order; pieces of white space alone are left out."""
        return list(self.cut_all([document]))

    def cut_all(self, documents: Iterable[Document]) -> Iterable[Chunk]:
        """The chunks of many documents."""
        for document in documents:
            pieces = [(start, text) for start, text in self._splitter.chunk_indices(document.content) if text.strip()]
            texts = [embedded_text(document.title, text) for _, text in pieces]
            yield from self._named(document.document_id, pieces, self.count(texts), texts)

    def _named(
        self, document_id: str, pieces: list[tuple[int, str]], tokens: list[int], texts: list[str]
    ) -> Iterable[Chunk]:
        seen: Counter[str] = Counter()
        for ordinal, ((start, text), n_tokens, embedded) in enumerate(zip(pieces, tokens, texts, strict=True)):
            # The id is made of the chunk's own text: a line put in at the top renames nothing below it.
            own = hash_text(text)
            occurrence = seen[own]
            seen[own] += 1
            yield Chunk(
                _chunk_id(document_id, self.id, own, occurrence),
                document_id,
                ordinal,
                start,
                start + len(text),
                text,
                n_tokens,
                self.limit is not None and n_tokens > self.limit,
                hash_text(embedded),
            )


def ready(name: str) -> bool:
    """Whether a chunker's id says that the documents bring their vectors."""
    return name == READY


def whole(name: str) -> bool:
    """Whether a chunker's id says that nothing is cut."""
    return name == WHOLE
