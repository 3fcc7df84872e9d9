"""Prompt templates: every version, immutable, and how the answers of each did."""

import dagster as dg

from assets import metadata
from assets.house import House
from lodestore.outcomes import performance
from lodestore.project import Project
from lodestore.tables import LOGS

__all__ = ["template_assets"]


def template_assets(house: House) -> list[dg.AssetsDefinition]:
    """The registry of template versions."""

    @dg.asset(
        key=house.key("templates"),
        group_name="prompts",
        kinds={"lancedb", "markdown"},
        owners=["team:prompts"],
        description=(
            "Every version of every prompt template file; a stored version never changes. "
            "`performance` compares the versions by what was reported about their answers."
        ),
    )
    def templates(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        added = project.pipeline.add_templates()
        rows = [
            {"template": one.template_id, "version": one.version, "family": one.family, "hash": one.content_hash[:12]}
            for one in project.templates.all()
        ]
        project.contexts.flush()
        told = {"versions": metadata.table(rows), "performance": metadata.table(performance(project.tables))}
        facts = metadata.figures(LOGS["templates"].schema, len(rows), added=len(added.new), **told)
        return dg.MaterializeResult(metadata=facts)

    return [templates]
