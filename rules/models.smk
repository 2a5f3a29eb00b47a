rule fetch_model:
    input:
        lambda w: PLAN.own_files("models", w.model),
    output:
        model=directory(PATHS.model("{model}")),
    log:
        PATHS.log("fetch_model", "{model}"),
    benchmark:
        PATHS.times("fetch_model", "{model}")
    wildcard_constraints:
        model=any_of(PLAN.models_made_by("fetch_model")),
    # It needs the network, which nodes of a cluster may not have.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda w: PLAN.resource("infer", "mem_mb", w.model),
    params:
        spec=lambda w: PLAN.fetch_spec(w.model),
        version=VERSION["fetch_model"],
    script:
        f"{SCRIPTS}/fetch_model.py"


rule pretrain_model:
    output:
        model=directory(PATHS.pretrained("{model}")),
    log:
        PATHS.log("pretrain_model", "{model}"),
    benchmark:
        PATHS.times("pretrain_model", "{model}")
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of_one_gpu("train"),
    params:
        seed=lambda w: PLAN.seed(w.model),
        architecture=lambda w: PLAN.setting("sandbox", w.model)["architecture"],
        corpus=lambda w: PLAN.setting("sandbox", w.model)["corpus"],
        training=lambda w: PLAN.setting("sandbox", w.model)["pretraining"],
        work=PATHS.resume("pretrained", "{model}"),
        version=VERSION["pretrain_model"],
    script:
        f"{SCRIPTS}/pretrain_model.py"


rule align_model:
    input:
        model=PATHS.pretrained("{model}"),
    output:
        model=directory(PATHS.model("{model}")),
    log:
        PATHS.log("align_model", "{model}"),
    benchmark:
        PATHS.times("align_model", "{model}")
    wildcard_constraints:
        model=any_of(PLAN.models_made_by("align_model")),
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of_one_gpu("train"),
    params:
        seed=lambda w: PLAN.seed(w.model),
        alignment=lambda w: PLAN.setting("sandbox", w.model)["alignment"],
        training=lambda w: PLAN.setting("sandbox", w.model)["alignment_training"],
        work=PATHS.resume("models", "{model}"),
        version=VERSION["align_model"],
    script:
        f"{SCRIPTS}/align_model.py"


rule tune_model:
    input:
        model=lambda w: PATHS.model(CONFIG["models"][w.model]["base"]),
        rows=lambda w: [PATHS.dataset(name) for name in CONFIG["models"][w.model]["data"]],
    output:
        model=directory(PATHS.model("{model}")),
    log:
        PATHS.log("tune_model", "{model}"),
    benchmark:
        PATHS.times("tune_model", "{model}")
    wildcard_constraints:
        model=any_of(PLAN.models_made_by("tune_model")),
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of_one_gpu("train"),
    params:
        seed=lambda w: PLAN.seed(w.model),
        # In their order: to Snakemake the same inputs in another order are no change.
        data=lambda w: CONFIG["models"][w.model]["data"],
        training=lambda w: CONFIG["models"][w.model]["training"],
        work=PATHS.resume("models", "{model}"),
        version=VERSION["tune_model"],
    script:
        f"{SCRIPTS}/tune_model.py"


rule train_cost_model:
    output:
        model=directory(PATHS.model("{model}")),
    log:
        PATHS.log("train_cost_model", "{model}"),
    benchmark:
        PATHS.times("train_cost_model", "{model}")
    wildcard_constraints:
        model=any_of(PLAN.models_made_by("train_cost_model")),
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of_one_gpu("train"),
    params:
        seed=lambda w: PLAN.seed(w.model),
        architecture=lambda w: PLAN.setting("sandbox", w.model)["architecture"],
        rows=lambda w: picked(PLAN.setting("sandbox", w.model)["cost"], "rows"),
        training=lambda w: PLAN.setting("sandbox", w.model)["cost"]["training"],
        work=PATHS.resume("models", "{model}"),
        version=VERSION["train_cost_model"],
    script:
        f"{SCRIPTS}/train_cost_model.py"


rule train_guard_model:
    output:
        model=directory(PATHS.model("{model}")),
    log:
        PATHS.log("train_guard_model", "{model}"),
    benchmark:
        PATHS.times("train_guard_model", "{model}")
    wildcard_constraints:
        model=any_of(PLAN.models_made_by("train_guard_model")),
    conda:
        ENVIRONMENT
    threads: threads_of("train")
    resources:
        **resources_of_one_gpu("train"),
    params:
        seed=lambda w: PLAN.seed(w.model),
        architecture=lambda w: PLAN.setting("sandbox", w.model)["architecture"],
        rows=lambda w: picked(PLAN.setting("sandbox", w.model)["guard"], "rows"),
        training=lambda w: PLAN.setting("sandbox", w.model)["guard"]["training"],
        work=PATHS.resume("models", "{model}"),
        version=VERSION["train_guard_model"],
    script:
        f"{SCRIPTS}/train_guard_model.py"
