rule make_dataset:
    input:
        lambda w: PLAN.own_files("datasets", w.dataset),
    output:
        PATHS.dataset("{dataset}"),
    log:
        PATHS.log("make_dataset", "{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: CONFIG["datasets"][w.dataset],
        version=VERSION["make_dataset"],
    script:
        f"{SCRIPTS}/make_dataset.py"


rule make_preferences:
    input:
        lambda w: PLAN.own_files("preferences", w.dataset),
    output:
        PATHS.preferences("{dataset}"),
    log:
        PATHS.log("make_preferences", "{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: CONFIG["preferences"][w.dataset],
        version=VERSION["make_preferences"],
    script:
        f"{SCRIPTS}/make_preferences.py"


rule make_benchmark:
    input:
        lambda w: PLAN.own_files("benchmarks", w.benchmark),
    output:
        PATHS.benchmark("{benchmark}"),
    log:
        PATHS.log("make_benchmark", "{benchmark}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: CONFIG["benchmarks"][w.benchmark],
        version=VERSION["make_benchmark"],
    script:
        f"{SCRIPTS}/make_benchmark.py"
