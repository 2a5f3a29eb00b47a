rule explain:
    """Why the riskiest rows of every selected curation, and some others, have their scores."""
    input:
        explained_rows,
    localrule: True


rule measure_token_shares:
    input:
        unpack(explained_terms(PLAN.term_files)),
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        scores=PATHS.scores("{model}", "{dataset}", "{method}"),
    output:
        PATHS.explained("{model}", "{dataset}", "{method}")["tokens"],
    log:
        PATHS.log("measure_token_shares", "{model}/{dataset}/{method}"),
    benchmark:
        PATHS.times("measure_token_shares", "{model}/{dataset}/{method}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        method=lambda w: PLAN.entry("methods", w.method, w.model),
        checkpoints=lambda w: PLAN.term_checkpoints(w.model, w.method),
        chosen=picked(CONFIG["explain"], "riskiest", "middling", "safest"),
        encoding=picked(
            CONFIG["gradients"],
            "max_length_tokens",
            "max_tokens_per_batch",
            "dtype",
            "checkpointing",
        ),
        version=VERSION["measure_token_shares"],
    script:
        f"{SCRIPTS}/measure_token_shares.py"


rule find_repeats:
    input:
        PATHS.dataset("{dataset}"),
    output:
        PATHS.repeats("{dataset}"),
    log:
        PATHS.log("find_repeats", "{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        similarity=CONFIG["explain"]["similarity"],
        version=VERSION["find_repeats"],
    script:
        f"{SCRIPTS}/find_repeats.py"


rule explain_rows:
    input:
        unpack(explained_terms(PLAN.term_modules)),
        tokens=PATHS.explained("{model}", "{dataset}", "{method}")["tokens"],
        scores=PATHS.scores("{model}", "{dataset}", "{method}"),
        rows=PATHS.dataset("{dataset}"),
        repeats=PATHS.repeats("{dataset}"),
    output:
        **{
            name: path
            for name, path in PATHS.explained("{model}", "{dataset}", "{method}").items()
            if name != "tokens"
        },
    log:
        PATHS.log("explain_rows", "{model}/{dataset}/{method}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        method=lambda w: PLAN.entry("methods", w.method, w.model),
        shown=picked(CONFIG["explain"], "riskiest", "safest", "nearest"),
        about=lambda w: dict(w),
        version=VERSION["explain_rows"],
    script:
        f"{SCRIPTS}/explain_rows.py"
