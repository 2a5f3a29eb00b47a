rule score_samples:
    input:
        shards=lambda w: [
            f"{RESULTS}/gradients/{w.experiment}/{state}/{shard}-{kind}.parquet"
            for state in configuration.states_needed(config, w.experiment)
            for shard in shards_of(w.experiment)
            for kind in ("samples", "modules")
        ],
    output:
        [f"{RESULTS}/scores/{{experiment}}/{m}.parquet" for m in METHODS],
    log:
        f"{LOGS}/score_samples/{{experiment}}.log",
    conda:
        ENVIRONMENT
    params:
        methods=METHODS,
        experiment=lambda w: experiment_of(w),
        seed=lambda w: config["models"][experiment_of(w)["model"]]["seed"],
    script:
        f"{SCRIPTS}/score_samples.py"


rule make_subsets:
    input:
        scores=f"{RESULTS}/scores/{{experiment}}/{{method}}.parquet",
        rows=lambda w: f"{RESULTS}/data/{experiment_of(w)['scored']}.parquet",
    output:
        [f"{RESULTS}/subsets/{{experiment}}/{{method}}/{w}.parquet" for w in WINDOWS],
    log:
        f"{LOGS}/make_subsets/{{experiment}}/{{method}}.log",
    conda:
        ENVIRONMENT
    params:
        size=config["subsets"]["rows"],
    script:
        f"{SCRIPTS}/make_subsets.py"
