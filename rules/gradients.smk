rule encode_samples:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
    output:
        PATHS.samples("{model}", "{dataset}"),
    log:
        PATHS.log("encode_samples", "{model}/{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        max_length_tokens=CONFIG["gradients"]["max_length_tokens"],
        version=VERSION["encode_samples"],
    script:
        f"{SCRIPTS}/encode_samples.py"


rule collect_gradients:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        state=PATHS.state("{model}", "{state}"),
        adapter=lambda w: PLAN.state_run(w.model, w.state),
        direction=PATHS.direction("{model}", "{direction}"),
    output:
        samples=PATHS.shard("{model}", "{dataset}", "{state}", "{direction}", "{shard}", "samples"),
        modules=PATHS.shard("{model}", "{dataset}", "{state}", "{direction}", "{shard}", "modules"),
    log:
        PATHS.log("collect_gradients", "{model}/{dataset}/{state}/{direction}/{shard}"),
    benchmark:
        PATHS.times("collect_gradients", "{model}/{dataset}/{state}/{direction}/{shard}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of("infer"),
    params:
        checkpoint=lambda w: PLAN.entry("directions", w.direction, w.model)["checkpoint"],
        gradients=CONFIG["gradients"],
        version=VERSION["collect_gradients"],
    script:
        f"{SCRIPTS}/collect_gradients.py"
