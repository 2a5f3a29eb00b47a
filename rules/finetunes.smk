rule finetune_subset:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=f"{RESULTS}/subsets/{{model}}/{{dataset}}/{{method}}/{{window}}.parquet",
    output:
        adapters=directory(f"{RESULTS}/finetunes/{{model}}/{{dataset}}/{{method}}/{{window}}"),
    log:
        f"{LOGS}/finetune_subset/{{model}}/{{dataset}}/{{method}}/{{window}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/finetune_subset/{{model}}/{{dataset}}/{{method}}/{{window}}.tsv"
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        finetunes=config["finetunes"],
        lora=config["lora"],
    script:
        f"{SCRIPTS}/finetune_subset.py"
