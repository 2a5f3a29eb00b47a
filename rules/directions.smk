def direction_data(wildcards):
    direction = config["directions"][wildcards.direction]
    folder = "data" if direction["objective"] == "sft" else "preferences"
    data = configuration.direction_data(config, wildcards.direction, wildcards.model)
    return f"{RESULTS}/{folder}/{data}.parquet"


def training_of_direction(wildcards):
    """What a direction's training depends on; which checkpoint is used is not of it."""
    direction = config["directions"][wildcards.direction]
    return {key: direction[key] for key in ("objective", "training", "save_steps")}


rule train_direction:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=direction_data,
    output:
        adapter=directory(f"{RESULTS}/directions/{{model}}/{{direction}}"),
    log:
        f"{LOGS}/train_direction/{{model}}/{{direction}}.log",
    benchmark:
        f"{TIMES}/train_direction/{{model}}/{{direction}}.tsv"
    conda:
        ENVIRONMENT
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        direction=training_of_direction,
        lora=config["lora"],
        seed=lambda w: config["models"][w.model]["seed"],
        work=f"{RESUME}/directions/{{model}}/{{direction}}",
    script:
        f"{SCRIPTS}/train_direction.py"
