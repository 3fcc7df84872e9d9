"""One resource: the project that lodestore.toml describes. Everything else is a part of it."""

import dagster as dg

from lodestore.project import Project, open_project

__all__ = ["ProjectResource"]


class ProjectResource(dg.ConfigurableResource[Project]):
    """The project; `path` is its settings file or folder, by default the one of LODESTORE_CONFIG or of this folder."""

    path: str | None = None

    def create_resource(self, context: dg.InitResourceContext) -> Project:  # noqa: ARG002 - Dagster's signature
        """Open the project in the process that runs the step; nothing is loaded before it is used."""
        return open_project(self.path)
