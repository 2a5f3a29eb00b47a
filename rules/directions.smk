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
    wildcard_constraints:
        # An unknown name too, whose message is that of its entry.
        direction=other_than(PLAN.given_directions),
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


rule fetch_direction:
    input:
        model=PATHS.model("{model}"),
        files=lambda w: PLAN.given_files(w.direction),
    output:
        adapter=directory(PATHS.direction("{model}", "{direction}")),
    log:
        PATHS.log("fetch_direction", "{model}/{direction}"),
    benchmark:
        PATHS.times("fetch_direction", "{model}/{direction}")
    wildcard_constraints:
        direction=any_of(PLAN.given_directions),
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of("infer", gpu=lambda w: 0),
    params:
        source=lambda w: CONFIG["directions"][w.direction]["source"],
        trained_by=VERSION["train_direction"],
        version=VERSION["fetch_direction"],
    script:
        f"{SCRIPTS}/fetch_direction.py"
