rule curate:
    """The rows of every selected experiment without the riskiest, in their own format."""
    input:
        PLAN.curated(),
    localrule: True


rule curate_rows:
    input:
        unpack(lambda w: PLAN.reading_files(w.model, w.dataset, curation_method(w))),
        scores=lambda w: PATHS.scores(w.model, w.dataset, curation_method(w)),
        own=lambda w: PLAN.own_files("datasets", w.dataset),
        trust=lambda w: PLAN.trust(w.model, curation_method(w)),
    output:
        folder=directory(PATHS.curated("{curation}", "{model}", "{dataset}")),
    log:
        PATHS.log("curate_rows", "{curation}/{model}/{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: CONFIG["datasets"][w.dataset],
        method=lambda w: PLAN.entry("methods", curation_method(w), w.model),
        about=lambda w: PLAN.curation(w.curation, w.model, w.dataset),
        fewest=smallest_batch(CONFIG),
        version=VERSION["curate_rows"],
    script:
        f"{SCRIPTS}/curate_rows.py"
