rule train_pilot:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=f"{RESULTS}/data/{{dataset}}.parquet",
    output:
        adapter=directory(f"{RESULTS}/pilots/{{model}}/{{dataset}}"),
    log:
        f"{LOGS}/train_pilot/{{model}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks-of-rules/train_pilot/{{model}}/{{dataset}}.tsv"
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        pilot=config["pilot"],
        lora=config["lora"],
        seed=lambda w: config["models"][w.model]["seed"],
    script:
        f"{SCRIPTS}/train_pilot.py"


rule measure_trajectory:
    input:
        pilot=f"{RESULTS}/pilots/{{model}}/{{dataset}}",
        directions=[f"{RESULTS}/directions/{{model}}/{d}" for d in (DANGER, SAFETY)],
    output:
        f"{RESULTS}/trajectories/{{model}}/{{dataset}}.parquet",
    log:
        f"{LOGS}/measure_trajectory/{{model}}/{{dataset}}.log",
    params:
        directions=[DANGER, SAFETY],
    script:
        f"{SCRIPTS}/measure_trajectory.py"


rule choose_states:
    input:
        trajectory=f"{RESULTS}/trajectories/{{model}}/{PILOT}.parquet",
        pilot=f"{RESULTS}/pilots/{{model}}/{PILOT}",
        pilot_judgements=judgements(f"pilot/{PILOT}", TUNING).replace(MODEL, "{model}", 1),
        safety=f"{RESULTS}/directions/{{model}}/{SAFETY}",
        steering_judgements=judgements(f"steering/{SAFETY}", TUNING).replace(MODEL, "{model}", 1),
    output:
        states=f"{RESULTS}/states/{{model}}.json",
        drift=f"{RESULTS}/states/{{model}}-drift.parquet",
        linear=f"{RESULTS}/states/{{model}}-linear.parquet",
    log:
        f"{LOGS}/choose_states/{{model}}.log",
    params:
        states=config["states"],
        delta=config["steering"]["delta"],
        danger=DANGER,
    script:
        f"{SCRIPTS}/choose_states.py"
