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
        **resources_of("infer"),
    params:
        size=CONFIG["subsets"]["rows"],
        encoding=picked(CONFIG["gradients"], "max_length_tokens", "dtype"),
        version=VERSION["measure_token_losses"],
    script:
        f"{SCRIPTS}/measure_token_losses.py"
