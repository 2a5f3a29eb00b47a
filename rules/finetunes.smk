rule finetune_subset:
    input:
        model=model_of,
        rows=f"{RESULTS}/subsets/{{experiment}}/{{method}}/{{window}}.parquet",
    output:
        adapters=directory(f"{RESULTS}/finetunes/{{experiment}}/{{method}}/{{window}}"),
    log:
        f"{LOGS}/finetune_subset/{{experiment}}/{{method}}/{{window}}.log",
    benchmark:
        f"{TIMES}/finetune_subset/{{experiment}}/{{method}}/{{window}}.tsv"
    # Before the evaluations: those pair up at the end, where a last fine-tune would run alone.
    priority: 1
    conda:
        ENVIRONMENT
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        finetunes=config["finetunes"],
        lora=config["lora"],
        work=f"{RESUME}/finetunes/{{experiment}}/{{method}}/{{window}}",
    script:
        f"{SCRIPTS}/finetune_subset.py"
