rule pretrain_model:
    output:
        model=directory(f"{RESULTS}/pretrained/{{model}}"),
    log:
        f"{LOGS}/pretrain_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/pretrain_model/{{model}}.tsv"
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        spec=lambda w: config["models"][w.model],
    script:
        f"{SCRIPTS}/pretrain_model.py"


rule align_model:
    input:
        model=f"{RESULTS}/pretrained/{{model}}",
    output:
        model=directory(f"{RESULTS}/models/{{model}}"),
    log:
        f"{LOGS}/align_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/align_model/{{model}}.tsv"
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        spec=lambda w: config["models"][w.model],
    script:
        f"{SCRIPTS}/align_model.py"
