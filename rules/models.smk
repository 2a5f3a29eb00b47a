SANDBOX_MODELS = [m for m, spec in config["models"].items() if spec["source"] == "sandbox"]
FETCHED_MODELS = [m for m in config["models"] if m not in SANDBOX_MODELS]


rule fetch_model:
    output:
        model=directory(f"{RESULTS}/models/{{model}}"),
    log:
        f"{LOGS}/fetch_model/{{model}}.log",
    benchmark:
        f"{TIMES}/fetch_model/{{model}}.tsv"
    wildcard_constraints:
        model=any_of(FETCHED_MODELS),
    conda:
        ENVIRONMENT
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        spec=lambda w: config["models"][w.model],
    script:
        f"{SCRIPTS}/fetch_model.py"


rule pretrain_model:
    output:
        model=directory(f"{RESULTS}/pretrained/{{model}}"),
    log:
        f"{LOGS}/pretrain_model/{{model}}.log",
    benchmark:
        f"{TIMES}/pretrain_model/{{model}}.tsv"
    conda:
        ENVIRONMENT
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        seed=lambda w: config["models"][w.model]["seed"],
        sandbox=config["sandbox"],
        work=f"{RESUME}/pretrained/{{model}}",
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
        f"{TIMES}/align_model/{{model}}.tsv"
    wildcard_constraints:
        model=any_of(SANDBOX_MODELS),
    conda:
        ENVIRONMENT
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        seed=lambda w: config["models"][w.model]["seed"],
        sandbox=config["sandbox"],
        work=f"{RESUME}/models/{{model}}",
    script:
        f"{SCRIPTS}/align_model.py"
