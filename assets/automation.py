"""When things have to be fresh: policies that follow from what is declared."""

from datetime import timedelta

import dagster as dg

from lodestore.spec import FeatureView

__all__ = ["DOCUMENTS_FRESH", "view_freshness"]

# The schedule is daily; half a day of grace for a failed night.
DOCUMENTS_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26))
_SHORTEST = timedelta(minutes=2)


def view_freshness(view: FeatureView) -> dg.FreshnessPolicy | None:
    """The policy that `fresh_within` asks for; none where the view says nothing."""
    if view.fresh_within is None:
        return None
    window = max(view.fresh_within, _SHORTEST)
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window / 2)
