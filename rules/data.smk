rule make_dataset:
    output:
        f"{RESULTS}/data/{{dataset}}.parquet",
    log:
        f"{LOGS}/make_dataset/{{dataset}}.log",
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: config["datasets"][w.dataset],
    script:
        f"{SCRIPTS}/make_dataset.py"


rule make_preferences:
    output:
        f"{RESULTS}/preferences/{{dataset}}.parquet",
    log:
        f"{LOGS}/make_preferences/{{dataset}}.log",
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: config["preferences"][w.dataset],
    script:
        f"{SCRIPTS}/make_preferences.py"


rule make_benchmark:
    output:
        f"{RESULTS}/benchmarks/{{benchmark}}.parquet",
    log:
        f"{LOGS}/make_benchmark/{{benchmark}}.log",
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: config["benchmarks"][w.benchmark],
    script:
        f"{SCRIPTS}/make_benchmark.py"
