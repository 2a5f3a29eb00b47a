rule score_samples:
    input:
        shards=lambda w: [
            f"{RESULTS}/gradients/{w.model}/{w.dataset}/{state}/{shard}-{kind}.parquet"
            for state in STATES
            for shard in shard_names(w.dataset)
            for kind in ("samples", "modules")
        ],
    output:
        scores=[f"{RESULTS}/scores/{{model}}/{{dataset}}/{m}.parquet" for m in SELECTED["methods"]],
    log:
        f"{LOGS}/score_samples/{{model}}/{{dataset}}.log",
    params:
        methods=SELECTED["methods"],
        seed=lambda w: config["models"][w.model]["seed"],
    script:
        f"{SCRIPTS}/score_samples.py"


rule make_subsets:
    input:
        scores=f"{RESULTS}/scores/{{model}}/{{dataset}}/{{method}}.parquet",
        rows=f"{RESULTS}/data/{{dataset}}.parquet",
    output:
        [f"{RESULTS}/subsets/{{model}}/{{dataset}}/{{method}}/{w}.parquet" for w in WINDOWS],
    log:
        f"{LOGS}/make_subsets/{{model}}/{{dataset}}/{{method}}.log",
    params:
        size=config["subsets"]["rows"],
    script:
        f"{SCRIPTS}/make_subsets.py"
