rule train_direction:
    input:
        model=PATHS.model("{model}"),
        rows=lambda w: PLAN.direction_rows(w.model, w.direction),
    output:
        adapter=directory(PATHS.direction("{model}", "{direction}")),
    log:
        PATHS.log("train_direction", "{model}/{direction}"),
    benchmark:
        PATHS.times("train_direction", "{model}/{direction}")
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of("train"),
    params:
        objective=lambda w: PLAN.entry("directions", w.direction, w.model)["objective"],
        training=lambda w: PLAN.entry("directions", w.direction, w.model)["training"],
        lora=CONFIG["lora"],
        run=lambda w: {"seed": PLAN.seed(w.model)}
        | picked(PLAN.entry("directions", w.direction, w.model), "save_steps"),
        work=PATHS.resume("directions", "{model}/{direction}"),
        version=VERSION["train_direction"],
    script:
        f"{SCRIPTS}/train_direction.py"
