rule measure_token_losses:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        samples=PATHS.samples("{model}", "{dataset}"),
    output:
        PATHS.token_losses("{model}", "{dataset}"),
    log:
        PATHS.log("measure_token_losses", "{model}/{dataset}"),
    benchmark:
        PATHS.times("measure_token_losses", "{model}/{dataset}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        size=CONFIG["subsets"]["rows"],
        encoding=picked(CONFIG["gradients"], "max_length_tokens", "dtype"),
        version=VERSION["measure_token_losses"],
    script:
        f"{SCRIPTS}/measure_token_losses.py"


rule measure_loss_changes:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        state=PATHS.state("{model}", "{state}"),
        adapter=lambda w: PLAN.state_run(w.model, w.state),
        direction=PATHS.direction("{model}", "{direction}"),
    output:
        PATHS.loss_changes("{table}", "{model}", "{dataset}", "{state}", "{direction}"),
    log:
        PATHS.log("measure_loss_changes", "{table}/{model}/{dataset}/{state}/{direction}"),
    benchmark:
        PATHS.times("measure_loss_changes", "{table}/{model}/{dataset}/{state}/{direction}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        checkpoint=lambda w: PLAN.entry("directions", w.direction, w.model)["checkpoint"],
        steps=lambda w: picked(CONFIG["tables"][w.table], "rows", "alphas"),
        encoding=picked(
            CONFIG["gradients"], "max_length_tokens", "max_tokens_per_batch", "checkpointing"
        ),
        version=VERSION["measure_loss_changes"],
    script:
        f"{SCRIPTS}/measure_loss_changes.py"


rule measure_row_losses:
    input:
        model=PATHS.model("{model}"),
        states=PATHS.subject_states("{model}", "{subject}", "{part}"),
        runs=lambda w: subject_of(w).runs[int(w.part)],
        rows=PATHS.dataset("{dataset}"),
    output:
        PATHS.row_losses("{model}", "{subject}", "{dataset}", "{part}"),
    log:
        PATHS.log("measure_row_losses", "{model}/{subject}/{dataset}/{part}"),
    benchmark:
        PATHS.times("measure_row_losses", "{model}/{subject}/{dataset}/{part}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        max_length_tokens=CONFIG["gradients"]["max_length_tokens"],
        dtype=lambda w: PLAN.setting("evaluation", w.model)["dtype"],
        version=VERSION["measure_row_losses"],
    script:
        f"{SCRIPTS}/measure_row_losses.py"
