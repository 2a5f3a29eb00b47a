rule train_pilot:
    input:
        model=PATHS.model("{model}"),
        rows=lambda w: PATHS.dataset(PLAN.entry("pilots", w.pilot, w.model)["data"]),
    output:
        adapter=directory(PATHS.pilot("{model}", "{pilot}")),
    log:
        PATHS.log("train_pilot", "{model}/{pilot}"),
    benchmark:
        PATHS.times("train_pilot", "{model}/{pilot}")
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of("train"),
    params:
        training=lambda w: PLAN.entry("pilots", w.pilot, w.model)["training"],
        lora=CONFIG["lora"],
        run=lambda w: {"seed": PLAN.seed(w.model)}
        | picked(PLAN.entry("pilots", w.pilot, w.model), "save_steps"),
        work=PATHS.resume("pilots", "{model}/{pilot}"),
        version=VERSION["train_pilot"],
    script:
        f"{SCRIPTS}/train_pilot.py"


rule measure_trajectory:
    input:
        pilot=PATHS.pilot("{model}", "{pilot}"),
        direction=PATHS.direction("{model}", "{direction}"),
    output:
        PATHS.trajectory("{model}", "{pilot}", "{direction}"),
    log:
        PATHS.log("measure_trajectory", "{model}/{pilot}/{direction}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        checkpoint=lambda w: PLAN.entry("directions", w.direction, w.model)["checkpoint"],
        version=VERSION["measure_trajectory"],
    script:
        f"{SCRIPTS}/measure_trajectory.py"


rule rank_checkpoints:
    input:
        unpack(lambda w: PLAN.measured(w.model, PLAN.pilot_subject(w.model, w.pilot))),
        trajectory=PATHS.trajectory("{model}", "{pilot}", "{direction}"),
    output:
        PATHS.checkpoint_ranking("{model}", "{pilot}", "{direction}"),
    log:
        PATHS.log("rank_checkpoints", "{model}/{pilot}/{direction}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        sensitivity=lambda w: picked(
            PLAN.setting("sensitivity", w.model),
            "floor_fraction",
            "rank_floored",
            "rank_by",
            "minimum_exact_share",
        ),
        version=VERSION["rank_checkpoints"],
    script:
        f"{SCRIPTS}/rank_checkpoints.py"


rule rank_alphas:
    input:
        unpack(lambda w: PLAN.measured(w.model, subject_of(w))),
    output:
        PATHS.alpha_ranking("{model}", "{subject}"),
    log:
        PATHS.log("rank_alphas", "{model}/{subject}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        sensitivity=lambda w: picked(
            PLAN.setting("sensitivity", w.model), "delta", "rank_by", "minimum_exact_share"
        ),
        version=VERSION["rank_alphas"],
    script:
        f"{SCRIPTS}/rank_alphas.py"


# What comes after it takes it as `ancient`. When such a rule runs, Snakemake forgets all that comes
# after (its issue 4166: status 0, and no scores); after a checkpoint it looks again.
checkpoint check_trust:
    input:
        unpack(lambda w: PLAN.trust_sources(w.model, w.method)),
    output:
        # Where a check that has passed fails, the file stays, and with it the gradients after it.
        update(PATHS.trust("{model}", "{method}")),
    log:
        PATHS.log("check_trust", "{model}/{method}"),
    wildcard_constraints:
        method=any_of(PLAN.checked_methods),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        directions=lambda w: {
            term: of["direction"] for term, of in PLAN.term_entries(w.model, w.method).items()
        },
        trust=CONFIG["trust"],
        version=VERSION["check_trust"],
    script:
        f"{SCRIPTS}/check_trust.py"


rule choose_state:
    input:
        unpack(lambda w: PLAN.state_sources(w.model, w.state)),
        model=PATHS.model("{model}"),
    output:
        PATHS.state("{model}", "{state}"),
    log:
        PATHS.log("choose_state", "{model}/{state}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        state=lambda w: PLAN.entry("states", w.state, w.model),
        sensitivity=lambda w: PLAN.search_settings(w.model, w.state),
        version=VERSION["choose_state"],
    script:
        f"{SCRIPTS}/choose_state.py"
