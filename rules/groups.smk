# Small groups of rows, each fine-tuned alone: a finer test of scores than five subsets.
rule make_groups:
    input:
        rows=PATHS.dataset("{dataset}"),
        samples=PATHS.samples("{model}", "{dataset}"),
    output:
        PATHS.groups("{model}", "{dataset}", "{groups}"),
    log:
        PATHS.log("make_groups", "{model}/{dataset}/{groups}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        groups=lambda w: CONFIG["groups"][w.groups],
        version=VERSION["make_groups"],
    script:
        f"{SCRIPTS}/make_groups.py"


# {model} is the model whose rows are usable; the target that is trained may be another.
rule finetune_groups:
    input:
        groups=PATHS.groups("{model}", "{dataset}", "{groups}"),
        rows=PATHS.dataset("{dataset}"),
        model=lambda w: PATHS.model(target_of(w)),
    output:
        directory(PATHS.group_runs("{finetune}", "{model}", "{dataset}", "{groups}", "{seed}")),
    log:
        PATHS.log("finetune_groups", "{finetune}/{model}/{dataset}/{groups}/seed-{seed}"),
    benchmark:
        PATHS.times("finetune_groups", "{finetune}/{model}/{dataset}/{groups}/seed-{seed}")
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
        work=PATHS.resume("groups", "{finetune}/{model}/{dataset}/{groups}/seed-{seed}"),
        version=VERSION["finetune_groups"],
    script:
        f"{SCRIPTS}/finetune_groups.py"
