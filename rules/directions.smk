def direction_data(wildcards):
    direction = config["directions"][wildcards.direction]
    folder = "data" if direction["objective"] == "sft" else "preferences"
    return f"{RESULTS}/{folder}/{direction['data']}.parquet"


rule train_direction:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=direction_data,
    output:
        adapter=directory(f"{RESULTS}/directions/{{model}}/{{direction}}"),
    log:
        f"{LOGS}/train_direction/{{model}}/{{direction}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/train_direction/{{model}}/{{direction}}.tsv"
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        direction=lambda w: config["directions"][w.direction],
        lora=config["lora"],
        seed=lambda w: config["models"][w.model]["seed"],
    script:
        f"{SCRIPTS}/train_direction.py"
