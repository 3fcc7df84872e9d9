"""Quality: measured values turned into asset checks."""
