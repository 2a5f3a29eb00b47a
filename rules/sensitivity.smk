def guard_tables(subject, wildcards):
    """Responses and prompts of the guard, none where an experiment has no guard."""
    spec = experiment_of(wildcards)
    if "guard" not in spec:
        return []
    return [
        evaluation(wildcards.experiment, subject, "guard", "responses"),
        f"{RESULTS}/benchmarks/{spec['guard']}.parquet",
    ]


def pilot_subject(wildcards):
    return f"pilot/{experiment_of(wildcards)['pilot']}"


def steering_subject(wildcards):
    return f"steering/{experiment_of(wildcards)['safety']['direction']}"


def state_choice(wildcards):
    """How a state is chosen: {rank}, {step}, {alpha}, or {least: True} for an insensitive one."""
    if wildcards.state.startswith("insensitive-"):
        return {"least": True}
    spec = experiment_of(wildcards)
    if wildcards.state == "safety":
        return {k: v for k, v in spec["safety"].items() if k != "direction"}
    return spec["danger"][wildcards.state.removeprefix("danger-")]


def state_kind(wildcards):
    return "linear" if wildcards.state in ("safety", "insensitive-safety") else "drift"


def state_ranking(wildcards):
    """The ranking a state is chosen from; a pinned state without a guard needs none."""
    if not {"rank", "least"} & set(state_choice(wildcards)) and "guard" not in experiment_of(
        wildcards
    ):
        return []
    folder = f"{RESULTS}/states/{wildcards.experiment}"
    if state_kind(wildcards) == "linear":
        return [f"{folder}/linear.parquet"]
    direction = wildcards.state.removeprefix("insensitive-").removeprefix("danger-")
    return [f"{folder}/drift-{direction}.parquet"]


def state_folder(wildcards):
    """The training run whose adapter a state is made of."""
    spec = experiment_of(wildcards)
    if state_kind(wildcards) == "linear":
        return direction_path(spec["model"], spec["safety"]["direction"])
    return f"{RESULTS}/pilots/{spec['model']}/{spec['pilot']}"


rule train_pilot:
    input:
        model=f"{RESULTS}/models/{{model}}",
        rows=f"{RESULTS}/data/{{dataset}}.parquet",
    output:
        adapter=directory(f"{RESULTS}/pilots/{{model}}/{{dataset}}"),
    log:
        f"{LOGS}/train_pilot/{{model}}/{{dataset}}.log",
    benchmark:
        f"{TIMES}/train_pilot/{{model}}/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: resource("train", "threads")
    resources:
        gpu=resource("train", "gpu"),
        mem_mb=resource("train", "mem_mb"),
        runtime=resource("train", "runtime"),
    params:
        pilot=config["pilot"],
        lora=config["lora"],
        seed=lambda w: config["models"][w.model]["seed"],
        work=f"{RESUME}/pilots/{{model}}/{{dataset}}",
    script:
        f"{SCRIPTS}/train_pilot.py"


rule measure_trajectory:
    input:
        pilot=lambda w: f"{RESULTS}/pilots/{experiment_of(w)['model']}/{experiment_of(w)['pilot']}",
        directions=lambda w: directions_of(w.experiment).values(),
    output:
        f"{RESULTS}/trajectories/{{experiment}}.parquet",
    log:
        f"{LOGS}/measure_trajectory/{{experiment}}.log",
    conda:
        ENVIRONMENT
    params:
        directions=lambda w: list(directions_of(w.experiment)),
        checkpoints=lambda w: [
            config["directions"][d]["checkpoint"] for d in directions_of(w.experiment)
        ],
    script:
        f"{SCRIPTS}/measure_trajectory.py"


rule rank_checkpoints:
    input:
        trajectory=f"{RESULTS}/trajectories/{{experiment}}.parquet",
        judgements=lambda w: evaluation(w.experiment, pilot_subject(w), "tuning", JUDGE),
        guard=lambda w: guard_tables(pilot_subject(w), w),
    output:
        f"{RESULTS}/states/{{experiment}}/drift-{{direction}}.parquet",
    log:
        f"{LOGS}/rank_checkpoints/{{experiment}}/{{direction}}.log",
    conda:
        ENVIRONMENT
    params:
        sensitivity=config["sensitivity"],
    script:
        f"{SCRIPTS}/rank_checkpoints.py"


rule rank_alphas:
    input:
        judgements=lambda w: evaluation(w.experiment, steering_subject(w), "tuning", JUDGE),
        guard=lambda w: guard_tables(steering_subject(w), w),
    output:
        f"{RESULTS}/states/{{experiment}}/linear.parquet",
    log:
        f"{LOGS}/rank_alphas/{{experiment}}.log",
    conda:
        ENVIRONMENT
    params:
        sensitivity=config["sensitivity"],
    script:
        f"{SCRIPTS}/rank_alphas.py"


rule choose_state:
    input:
        ranking=state_ranking,
        folder=state_folder,
    output:
        f"{RESULTS}/states/{{experiment}}/{{state}}.json",
    log:
        f"{LOGS}/choose_state/{{experiment}}/{{state}}.log",
    conda:
        ENVIRONMENT
    params:
        kind=state_kind,
        choice=state_choice,
        checkpoint=lambda w: config["directions"][experiment_of(w)["safety"]["direction"]][
            "checkpoint"
        ],
        minimum_exact_share=config["sensitivity"]["minimum_exact_share"],
    script:
        f"{SCRIPTS}/choose_state.py"
