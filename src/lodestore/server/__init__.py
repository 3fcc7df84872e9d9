"""The feature server: a Starlette application over one project."""
