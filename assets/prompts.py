"""Prompt templates: every version, immutable."""

import dagster as dg

from assets import metadata
from assets.house import House
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
        description="Every version of every prompt template file; a stored version never changes.",
    )
    def templates(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        added = project.pipeline.add_templates()
        rows = [
            {"template": one.template_id, "version": one.version, "family": one.family, "hash": one.content_hash[:12]}
            for one in project.templates.all()
        ]
        facts = metadata.figures(LOGS["templates"].schema, len(rows), added=len(added.new), versions=metadata.table(rows))
        return dg.MaterializeResult(metadata=facts)

    return [templates]
