"""Your own expectations, added by hand to the suites that follow from the declarations.

    from quality.expectations import expect
    from quality.suites import extends

    @extends("user_profile")
    def profiles():
        return [expect("expect_column_mean_to_be_between", column="account_age_days", min_value=10, severity="warning")]

A suite from elsewhere comes in whole: `return imported("suites/profiles.json")`. An expectation with
the name of a generated one replaces it.
"""

__all__: list[str] = []
