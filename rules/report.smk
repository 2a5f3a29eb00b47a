def finetune_judgements(methods):
    return [judgements(f"finetunes/{SCORED}/{m}", TEST) for m in methods]


CONTROLLED = [m for m in SELECTED["methods"] if m.startswith("sqsd-") or m in ("random", "length")]
ABLATIONS = [m for m in SELECTED["methods"] if m not in ("random", "length")]


rule table1:
    """Attack success rate of S1 to S5 a method, with controls."""
    input:
        judgements=finetune_judgements(CONTROLLED),
    output:
        table_files("table1"),
    log:
        f"{LOGS}/table1.log",
    params:
        methods=CONTROLLED,
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="asr",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule table3:
    """Ablations of the score: attack success rate of S1 to S5."""
    input:
        judgements=finetune_judgements(ABLATIONS),
    output:
        table_files("table3"),
    log:
        f"{LOGS}/table3.log",
    params:
        methods=ABLATIONS,
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="asr",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule table4:
    """Top 5 alphas by linear-path sensitivity of the safety direction."""
    input:
        f"{RESULTS}/states/{MODEL}-linear.parquet",
    output:
        table_files("table4"),
    log:
        f"{LOGS}/table4.log",
    script:
        f"{SCRIPTS}/sensitivity_table.py"


rule table5:
    """Top 5 pilot checkpoints by drift sensitivity to the danger direction."""
    input:
        f"{RESULTS}/states/{MODEL}-drift.parquet",
    output:
        table_files("table5"),
    log:
        f"{LOGS}/table5.log",
    script:
        f"{SCRIPTS}/sensitivity_table.py"


rule table6:
    """The chosen initial states."""
    input:
        f"{RESULTS}/states/{MODEL}.json",
    output:
        table_files("table6"),
    log:
        f"{LOGS}/table6.log",
    script:
        f"{SCRIPTS}/sensitivity_table.py"


rule table7:
    """Safety Score of S1 to S5 a method, with controls."""
    input:
        judgements=finetune_judgements(CONTROLLED),
    output:
        table_files("table7"),
    log:
        f"{LOGS}/table7.log",
    params:
        methods=CONTROLLED,
        seeds=config["finetunes"]["seeds"],
        windows=WINDOWS,
        measure="safety_score",
    script:
        f"{SCRIPTS}/effectiveness_table.py"


rule figure2:
    """Safety Score and projections on both directions along the pilot fine-tune."""
    input:
        trajectory=f"{RESULTS}/trajectories/{MODEL}/{PILOT}.parquet",
        judgements=judgements(f"pilot/{PILOT}", TUNING),
    output:
        figure_files("figure2"),
    log:
        f"{LOGS}/figure2.log",
    script:
        f"{SCRIPTS}/figure2.py"


rule figure5:
    """Safety Score against the steering magnitude alpha, a line a direction."""
    input:
        [judgements(f"steering/{d}", TUNING) for d in (DANGER, SAFETY)],
    output:
        figure_files("figure5"),
    log:
        f"{LOGS}/figure5.log",
    params:
        directions=[DANGER, SAFETY],
    script:
        f"{SCRIPTS}/figure5.py"
