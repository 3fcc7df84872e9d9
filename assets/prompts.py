"""Prompt templates: every version, immutable, and how the answers of each did."""

import dagster as dg

from assets import charts, metadata
from assets.house import House
from lodestore.metrics import Interval
from lodestore.outcomes import Performance, Standing, performance, standings
from lodestore.project import Project
from lodestore.tables import LOGS

__all__ = ["template_assets"]

_UNBROKEN = "\u00a0"


def compared(project: Project) -> dg.MarkdownMetadataValue:
    """The versions side by side: how often their answers were accepted, and whether one does better than what is live."""
    found = standings(performance(project.tables), project.releases.live().templates)
    table = metadata.table([_row(one) for one in found])
    judged = [one for one in found if one.figures.judged]
    bars = charts.shares([(str(one.figures), _acceptance(one.figures), one.share > 0) for one in judged])
    note = "\n\nacceptance from 0 to 1 with its 95 % interval, live versions violet, from above: "
    names = ", ".join(str(one.figures) for one in judged)
    beside = "".join(f"\n- {one.figures} against what most users get: {one.told}" for one in judged if one.told)
    return dg.MetadataValue.md(f"{table.value}\n{beside}\n\n{bars}{note}{names}" if judged else str(table.value))


def _acceptance(one: Performance) -> Interval:
    return Interval(one.acceptance_rate or 0.0, one.acceptance_low or 0.0, one.acceptance_high or 0.0)


def _row(one: Standing) -> dict[str, object]:
    figures = one.figures
    share = _acceptance(figures)
    accepted = f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of {figures.judged:,}"
    row = {
        "template": str(figures),
        "live": f"{one.share:.0%}" if one.share else "",
        "renders": f"{figures.renders:,}",
        "accepted, 95 %": accepted if figures.judged else "",
        "rating": "" if figures.rating is None else f"{figures.rating:.2f}",
        "latency": "" if figures.latency_ms is None else f"{figures.latency_ms:,.0f} ms",
        "tokens": "" if figures.tokens is None else f"{figures.tokens:,.0f}",
    }
    # The page breaks lines at blanks as soon as it can.
    return {name: text.replace(" ", _UNBROKEN) for name, text in row.items()}


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
        told = {"versions": metadata.table(rows), "performance": compared(project)}
        facts = metadata.figures(LOGS["templates"].schema, len(rows), added=len(added.new), **told)
        return dg.MaterializeResult(metadata=facts)

    return [templates]
