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
        f"{TIMES}/generate_responses/{{model}}/{{subject}}/{{benchmark}}.tsv"
    conda:
        ENVIRONMENT
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        states=subject_states,
        max_new_tokens=config["evaluation"]["max_new_tokens"],
        batch_size=config["evaluation"]["batch_size"],
        dtype=config["evaluation"]["dtype"],
    script:
        f"{SCRIPTS}/generate_responses.py"


rule judge_responses:
    input:
        model=f"{RESULTS}/models/{{model}}",
        responses=f"{RESULTS}/evaluations/{{model}}/{{subject}}/{{benchmark}}/responses.parquet",
        adapters=subject_adapters,
    output:
        f"{RESULTS}/evaluations/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.parquet",
    log:
        f"{LOGS}/judge_responses/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.log",
    benchmark:
        f"{TIMES}/judge_responses/{{model}}/{{subject}}/{{benchmark}}/{{judge}}.tsv"
    wildcard_constraints:
        judge=any_of(config["judges"]),
    conda:
        ENVIRONMENT
    threads: resource("infer", "threads")
    resources:
        gpu=resource("infer", "gpu"),
        mem_mb=resource("infer", "mem_mb"),
        runtime=resource("infer", "runtime"),
    params:
        states=subject_states,
        judge=lambda w: config["judges"][w.judge],
        dtype=config["evaluation"]["dtype"],
    script:
        f"{SCRIPTS}/judge_responses.py"
