# Without an output: what is said of a run is of this moment, and made again whenever it is asked for.
rule plan:
    """Rows, tokens, hours and memory of `curate` and `all`, before any of their jobs runs."""
    log:
        PATHS.log("plan"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=PLAN.resolved,
        jobs=lambda w: planned_jobs({"curate": PLAN.curated(), "all": SELECTED}),
        version=VERSION["plan"],
    script:
        f"{SCRIPTS}/plan.py"
