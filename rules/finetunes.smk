# {model} is the model whose scores made the subsets; the target that is trained may be another.
rule finetune_subsets:
    input:
        **{w: PATHS.subset("{model}", "{dataset}", "{method}", w) for w in PLAN.windows},
        model=lambda w: PATHS.model(target_of(w)),
    output:
        **{
            w: directory(
                PATHS.finetune("{finetune}", "{model}", "{dataset}", "{method}", "{seed}", w)
            )
            for w in PLAN.windows
        },
    log:
        PATHS.log("finetune_subsets", "{finetune}/{model}/{dataset}/{method}/seed-{seed}"),
    benchmark:
        PATHS.times("finetune_subsets", "{finetune}/{model}/{dataset}/{method}/seed-{seed}")
    # Before the evaluations: those pair up at the end, where a last fine-tune would run alone.
    priority: 1
    conda:
        ENVIRONMENT
    threads: threads_of("train", target_of)
    resources:
        **resources_of("train", target_of),
    params:
        training=lambda w: PLAN.entry("finetunes", w.finetune, target_of(w))["training"],
        lora=lambda w: PLAN.finetune_lora(w.finetune, target_of(w)),
        seed=lambda w: int(w.seed),
        windows=PLAN.windows,
        work=PATHS.resume("finetunes", "{finetune}/{model}/{dataset}/{method}/seed-{seed}"),
        version=VERSION["finetune_subsets"],
    script:
        f"{SCRIPTS}/finetune_subsets.py"


rule finetune_all_rows:
    input:
        rows=PATHS.dataset("{dataset}"),
        model=lambda w: PATHS.model(target_of(w)),
    output:
        directory(PATHS.finetune("{finetune}", "{model}", "{dataset}", ALL_ROWS, "{seed}", ALL)),
    log:
        PATHS.log("finetune_all_rows", "{finetune}/{model}/{dataset}/seed-{seed}"),
    benchmark:
        PATHS.times("finetune_all_rows", "{finetune}/{model}/{dataset}/seed-{seed}")
    # The longest of all fine-tunes.
    priority: 2
    conda:
        ENVIRONMENT
    threads: threads_of("train", target_of)
    resources:
        **resources_of("train", target_of),
    params:
        training=lambda w: PLAN.entry("finetunes", w.finetune, target_of(w))["training"],
        lora=lambda w: PLAN.finetune_lora(w.finetune, target_of(w)),
        seed=lambda w: int(w.seed),
        work=PATHS.resume("finetunes", "{finetune}/{model}/{dataset}/all-rows/seed-{seed}"),
        version=VERSION["finetune_all_rows"],
    script:
        f"{SCRIPTS}/finetune_all_rows.py"


# {method} is `all-rows` where a treatment goes by no method's scores.
rule treat_rows:
    input:
        unpack(lambda w: PLAN.treated_from(w.model, w.dataset, w.method, w.treatment)),
    output:
        PATHS.treated("{model}", "{dataset}", "{method}", "{treatment}"),
    log:
        PATHS.log("treat_rows", "{model}/{dataset}/{method}/{treatment}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        treatment=lambda w: CONFIG["treatments"][w.treatment],
        version=VERSION["treat_rows"],
    script:
        f"{SCRIPTS}/treat_rows.py"


rule finetune_treated_rows:
    input:
        rows=treated_rows,
        model=lambda w: PATHS.model(target_of(w)),
    output:
        directory(
            PATHS.finetune(
                "{finetune}", "{model}", "{dataset}", "{method}", "{seed}", "{treatment}"
            )
        ),
    log:
        PATHS.log(
            "finetune_treated_rows",
            "{finetune}/{model}/{dataset}/{method}/seed-{seed}/{treatment}",
        ),
    benchmark:
        PATHS.times(
            "finetune_treated_rows",
            "{finetune}/{model}/{dataset}/{method}/seed-{seed}/{treatment}",
        )
    priority: 2
    conda:
        ENVIRONMENT
    threads: threads_of("train", target_of)
    resources:
        **resources_of("train", target_of),
    params:
        training=lambda w: PLAN.entry("finetunes", w.finetune, target_of(w))["training"],
        lora=lambda w: PLAN.finetune_lora(w.finetune, target_of(w)),
        seed=lambda w: int(w.seed),
        work=PATHS.resume(
            "finetunes", "{finetune}/{model}/{dataset}/{method}/seed-{seed}/{treatment}"
        ),
        version=VERSION["finetune_treated_rows"],
    script:
        f"{SCRIPTS}/finetune_treated_rows.py"
