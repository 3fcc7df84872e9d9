"""Orchestration: jobs, schedules and sensors over the assets and checks."""
