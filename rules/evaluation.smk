rule generate_responses:
    input:
        model=f"{RESULTS}/models/{{model}}",
        prompts=f"{RESULTS}/benchmarks/{{benchmark}}.parquet",
        adapters=subject_adapters,
    output:
        f"{RESULTS}/evaluations/{{model}}/{{subject}}/{{benchmark}}/responses.parquet",
    log:
        f"{LOGS}/generate_responses/{{model}}/{{subject}}/{{benchmark}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/generate_responses/{{model}}/{{subject}}/{{benchmark}}.tsv"
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        kind=subject_kind,
        alphas=config["steering"]["alphas"],
        seeds=config["finetunes"]["seeds"],
        max_new_tokens=config["evaluation"]["max_new_tokens"],
        batch_size=config["evaluation"]["batch_size"],
    script:
        f"{SCRIPTS}/generate_responses.py"


rule judge_responses:
    input:
        model=f"{RESULTS}/models/{{model}}",
        adapters=subject_adapters,
        responses=f"{RESULTS}/evaluations/{{model}}/{{subject}}/{{benchmark}}/responses.parquet",
    output:
        f"{RESULTS}/evaluations/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.parquet",
    log:
        f"{LOGS}/judge_responses/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/judge_responses/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.tsv"
    wildcard_constraints:
        judge=JUDGE,
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        kind=subject_kind,
        alphas=config["steering"]["alphas"],
        seeds=config["finetunes"]["seeds"],
        max_length_tokens=config["gradients"]["max_length_tokens"],
    script:
        f"{SCRIPTS}/judge_responses.py"
