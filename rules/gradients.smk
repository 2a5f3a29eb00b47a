STATES = ["danger", "safety", "insensitive-danger", "insensitive-safety"]


def shard_names(dataset):
    rows, size = config["datasets"][dataset]["rows"], config["gradients"]["rows_per_shard"]
    return [f"{i:05d}" for i in range(-(-rows // size))]


rule collect_gradients:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=f"{RESULTS}/data/{{dataset}}.parquet",
        states=f"{RESULTS}/states/{{model}}.json",
        danger=f"{RESULTS}/directions/{{model}}/{DANGER}",
        safety=f"{RESULTS}/directions/{{model}}/{SAFETY}",
    output:
        samples=f"{RESULTS}/gradients/{{model}}/{{dataset}}/{{state}}/{{shard}}-samples.parquet",
        modules=f"{RESULTS}/gradients/{{model}}/{{dataset}}/{{state}}/{{shard}}-modules.parquet",
    log:
        f"{LOGS}/collect_gradients/{{model}}/{{dataset}}/{{state}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/collect_gradients/{{model}}/{{dataset}}/{{state}}/{{shard}}.tsv"
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        gradients=config["gradients"],
    script:
        f"{SCRIPTS}/collect_gradients.py"
