"""Prompt templates in the store: immutable versions, offered from files, live by the release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from lodestore import prompts
from lodestore.errors import UnknownTemplateError
from lodestore.logs import Logs
from lodestore.prompts import PromptTemplate, choose, version_key
from lodestore.releases import Release
from lodestore.tables import MOMENT
from lodestore.wire import dumps

__all__ = ["Added", "Templates"]


@dataclass(frozen=True, slots=True)
class Added:
    """What a folder of templates brought: labels such as `qa_basic 1.0.0`."""

    new: tuple[str, ...]
    known: tuple[str, ...]


class Templates:
    """The registry of template versions."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        # Versions never change, so one that was read once need not be read again.
        self._read: dict[tuple[str, str], PromptTemplate] = {}

    def all(self) -> list[PromptTemplate]:
        """Every stored version, by id and version."""
        found = [PromptTemplate.from_row(row) for row in self._logs.rows("templates")]
        self._read = {(one.template_id, one.version): one for one in found}
        return sorted(found, key=lambda one: (one.template_id, version_key(one.version)))

    def get(self, template_id: str, version: str) -> PromptTemplate:
        """That version of the template."""
        if (template_id, version) not in self._read:
            self.all()
        if (template_id, version) not in self._read:
            mine = [number for name, number in self._read if name == template_id]
            known = [f"{template_id} {number}" for number in mine] or sorted({name for name, _ in self._read})
            raise UnknownTemplateError(f"{template_id} {version}" if mine else template_id, known)
        return self._read[template_id, version]

    def add(self, offered: Iterable[PromptTemplate]) -> Added:
        """All the templates are stored, or none: changed text under a stored version is an error that names the next."""
        stored = {(one.template_id, one.version): one for one in self.all()}
        new: list[PromptTemplate] = []
        known: list[str] = []
        for template in offered:
            existing = stored.setdefault((template.template_id, template.version), template)
            if existing is template and template not in new:
                new.append(template)
                continue
            taken = [version for name, version in stored if name == template.template_id]
            prompts.conflict(existing, template, taken=taken)
            known.append(str(template))
        self._store(new)
        return Added(tuple(map(str, new)), tuple(known))

    def _store(self, new: Sequence[PromptTemplate]) -> None:
        rows = [{"key": str(one), **one.to_row()} for one in new]
        if self._logs.put_all("templates", rows) == len(new):
            return
        # Somebody else stored one of these versions in between; theirs stands.
        stored = {(one.template_id, one.version): one for one in self.all()}
        for one in new:
            prompts.conflict(stored[one.template_id, one.version], one)

    def add_folder(self, folder: Path) -> Added:
        """Every template file of the folder is stored."""
        return self.add(prompts.read_folder(folder))

    def newest(self) -> dict[str, str]:
        """Template id -> its highest stored version."""
        return {one.template_id: one.version for one in self.all()}

    def live(self, template_id: str, release: Release, *, sticky: str = "") -> PromptTemplate:
        """The version that is live for this user; with a split, the same user always gets the same one."""
        weights = release.templates.get(template_id)
        if weights is None:
            raise UnknownTemplateError(template_id, release.templates)
        version = choose(weights, f"{template_id}/{sticky}") if len(weights) > 1 else next(iter(weights))
        return self.get(template_id, version)

    def as_features(self, release: Release) -> pa.Table:
        """One row per live template, in the columns of the view `prompt_templates`."""
        rows = [self._row(one, weights, release.at) for one, weights in sorted(release.templates.items())]
        schema = pa.schema(
            [
                *((name, pa.string()) for name in ("template_id", "template_content", "variables")),
                *((name, pa.string()) for name in ("model_family", "version", "content_hash", "event_id")),
                ("event_timestamp", MOMENT),
            ]
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def _row(self, template_id: str, weights: Mapping[str, float], at: datetime) -> dict[str, object]:
        version = max(weights, key=lambda one: weights[one])
        template = self.get(template_id, version)
        return {
            "template_id": template_id,
            "template_content": template.text,
            "variables": dumps({one.name: {"type": one.type, "required": one.required} for one in template.variables}),
            "model_family": template.family,
            "version": template.version,
            "content_hash": template.content_hash,
            "event_id": f"{template}/{template.content_hash}",
            "event_timestamp": at,
        }
