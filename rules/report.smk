COMPARED = configuration.comparison_methods(METHODS)
ABLATED = configuration.ablation_methods(METHODS)


def arms(methods):
    """Every (experiment, method) of a table."""
    return [(experiment, method) for experiment in EXPERIMENTS for method in methods]


def arm_judgements(methods):
    return [evaluation(e, f"finetunes/{e}/{m}", "test", JUDGE) for e, m in arms(methods)]


def danger_arms():
    """Every (experiment, danger direction)."""
    return [(e, d) for e in EXPERIMENTS for d in config["experiments"][e]["danger"]]


def state_names(experiment):
    return ["safety", *(f"danger-{d}" for d in config["experiments"][experiment]["danger"])]


rule table1:
    """Attack success rate of S1 to S5 a method, with controls."""
    input:
        judgements=arm_judgements(COMPARED),
    output:
        report_files("table1"),
    log:
        f"{LOGS}/table1.log",
    conda:
        ENVIRONMENT
    params:
        arms=arms(COMPARED),
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="asr",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule table3:
    """Ablations of the score: attack success rate of S1 to S5."""
    input:
        judgements=arm_judgements(ABLATED),
    output:
        report_files("table3"),
    log:
        f"{LOGS}/table3.log",
    conda:
        ENVIRONMENT
    params:
        arms=arms(ABLATED),
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="asr",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule table4:
    """Top 5 alphas by linear-path sensitivity of the safety direction."""
    input:
        rankings=[f"{RESULTS}/states/{e}/linear.parquet" for e in EXPERIMENTS],
    output:
        report_files("table4"),
    log:
        f"{LOGS}/table4.log",
    conda:
        ENVIRONMENT
    params:
        arms=[(e, config["experiments"][e]["safety"]["direction"]) for e in EXPERIMENTS],
        schema="linear_ranking",
    script:
        f"{SCRIPTS}/sensitivity_table.py"


rule table5:
    """Top 5 pilot checkpoints by drift sensitivity to each danger direction."""
    input:
        rankings=[f"{RESULTS}/states/{e}/drift-{d}.parquet" for e, d in danger_arms()],
    output:
        report_files("table5"),
    log:
        f"{LOGS}/table5.log",
    conda:
        ENVIRONMENT
    params:
        arms=danger_arms(),
        schema="drift_ranking",
    script:
        f"{SCRIPTS}/sensitivity_table.py"


rule table6:
    """The chosen initial states, with their rank among the sensitive ones."""
    input:
        states=[f"{RESULTS}/states/{e}/{s}.json" for e in EXPERIMENTS for s in state_names(e)],
    output:
        report_files("table6"),
    log:
        f"{LOGS}/table6.log",
    conda:
        ENVIRONMENT
    params:
        arms=[(e, s) for e in EXPERIMENTS for s in state_names(e)],
    script:
        f"{SCRIPTS}/states_table.py"


rule table7:
    """Safety Score of S1 to S5 a method, with controls."""
    input:
        judgements=arm_judgements(COMPARED),
    output:
        report_files("table7"),
    log:
        f"{LOGS}/table7.log",
    conda:
        ENVIRONMENT
    params:
        arms=arms(COMPARED),
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="safety_score",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule ranking:
    """Every scored row by risk, and a page of the 10 highest and 10 lowest."""
    input:
        scores=[f"{RESULTS}/scores/{e}/{m}.parquet" for e, m in arms(METHODS[:1])],
        rows=[f"{RESULTS}/data/{config['experiments'][e]['scored']}.parquet" for e in EXPERIMENTS],
    output:
        report_files("ranking"),
    log:
        f"{LOGS}/ranking.log",
    conda:
        ENVIRONMENT
    params:
        arms=arms(METHODS[:1]),
    script:
        f"{SCRIPTS}/ranking.py"


rule figure2:
    """Safety Score and projections on every direction along the pilot fine-tune."""
    input:
        trajectories=[f"{RESULTS}/trajectories/{e}.parquet" for e in EXPERIMENTS],
        judgements=[
            evaluation(e, f"pilot/{config['experiments'][e]['pilot']}", "tuning", JUDGE)
            for e in EXPERIMENTS
        ],
    output:
        report_files("figure2"),
    log:
        f"{LOGS}/figure2.log",
    conda:
        ENVIRONMENT
    params:
        experiments=EXPERIMENTS,
    script:
        f"{SCRIPTS}/figure2.py"


rule figure5:
    """Safety Score against the steering magnitude alpha, a line a direction."""
    input:
        judgements=[
            evaluation(e, f"steering/{d}", "tuning", JUDGE)
            for e in EXPERIMENTS
            for d in directions_of(e)
        ],
    output:
        report_files("figure5"),
    log:
        f"{LOGS}/figure5.log",
    conda:
        ENVIRONMENT
    params:
        arms=[(e, d) for e in EXPERIMENTS for d in directions_of(e)],
    script:
        f"{SCRIPTS}/figure5.py"
