def shards_of(experiment):
    """Names of the shards of an experiment's scored rows."""
    rows = config["datasets"][config["experiments"][experiment]["scored"]]["rows"]
    return [f"{i:05d}" for i in range(-(-rows // config["gradients"]["rows_per_shard"]))]


rule collect_gradients:
    input:
        model=model_of,
        rows=lambda w: f"{RESULTS}/data/{experiment_of(w)['scored']}.parquet",
        state=f"{RESULTS}/states/{{experiment}}/{{state}}.json",
        adapters=state_folder,
        directions=lambda w: directions_of(w.experiment).values(),
    output:
        samples=f"{RESULTS}/gradients/{{experiment}}/{{state}}/{{shard}}-samples.parquet",
        modules=f"{RESULTS}/gradients/{{experiment}}/{{state}}/{{shard}}-modules.parquet",
    log:
        f"{LOGS}/collect_gradients/{{experiment}}/{{state}}/{{shard}}.log",
    benchmark:
        f"{TIMES}/collect_gradients/{{experiment}}/{{state}}/{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        directions=lambda w: list(directions_of(w.experiment)),
        checkpoints=lambda w: [
            config["directions"][d]["checkpoint"] for d in directions_of(w.experiment)
        ],
        gradients=config["gradients"],
    script:
        f"{SCRIPTS}/collect_gradients.py"
