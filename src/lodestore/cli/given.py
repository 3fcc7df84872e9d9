"""What people give a prompt on the command line: values for its variables, and the earlier turns of a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lodestore.cli.session import pairs

if TYPE_CHECKING:
    from lodestore.prompts import PromptTemplate

__all__ = ["turns", "variables"]


def variables(template: PromptTemplate, given: Sequence[str]) -> dict[str, object]:
    """Each NAME=VALUE as the value that the variable takes; what is no JSON stays text, and is refused when rendered."""
    kinds = {one.name: one.type for one in template.variables}
    values: dict[str, object] = {}
    for name, text in pairs(given, "--var"):
        if name in values:
            message = f"--var {name} is given twice; give it once"
            raise click.UsageError(message, click.get_current_context(silent=True))
        values[name] = text
        if kinds.get(name, "string") != "string":
            try:
                values[name] = json.loads(text)
            except ValueError:
                continue
    return values


def turns(text: str | None) -> object:
    """The earlier turns: a JSON list, or one text as it is."""
    if text is None or not text.lstrip().startswith("["):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        message = f"--history is no JSON: {error}"
        raise click.UsageError(message, click.get_current_context(silent=True)) from None
