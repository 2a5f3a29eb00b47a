rule list_states:
    input:
        model=PATHS.model("{model}"),
        runs=lambda w: subject_of(w).runs[int(w.part)],
    output:
        PATHS.subject_states("{model}", "{subject}", "{part}"),
    log:
        PATHS.log("list_states", "{model}/{subject}/{part}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        listing=lambda w: subject_of(w).parts[int(w.part)],
        version=VERSION["list_states"],
    script:
        f"{SCRIPTS}/list_states.py"


rule generate_responses:
    input:
        model=PATHS.model("{model}"),
        states=PATHS.subject_states("{model}", "{subject}", "{part}"),
        runs=lambda w: subject_of(w).runs[int(w.part)],
        prompts=PATHS.benchmark("{benchmark}"),
    output:
        PATHS.responses("{model}", "{subject}", "{benchmark}", "{part}"),
    log:
        PATHS.log("generate_responses", "{model}/{subject}/{benchmark}/{part}"),
    benchmark:
        PATHS.times("generate_responses", "{model}/{subject}/{benchmark}/{part}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of("infer"),
    params:
        generation=lambda w: picked(
            PLAN.setting("evaluation", w.model), "max_new_tokens", "batch_size", "dtype"
        ),
        version=VERSION["generate_responses"],
    script:
        f"{SCRIPTS}/generate_responses.py"


rule judge_responses:
    input:
        unpack(lambda w: PLAN.judged_models(w.judge, w.model, subject_of(w), int(w.part))),
        states=PATHS.subject_states("{model}", "{subject}", "{part}"),
        responses=PATHS.responses("{model}", "{subject}", "{benchmark}", "{part}"),
    output:
        PATHS.judgements("{model}", "{subject}", "{benchmark}", "{judge}", "{part}"),
    log:
        PATHS.log("judge_responses", "{model}/{subject}/{benchmark}/{judge}/{part}"),
    benchmark:
        PATHS.times("judge_responses", "{model}/{subject}/{benchmark}/{judge}/{part}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer", judging_model)
    resources:
        **resources_of("infer", judging_model) | {"gpu": judge_gpu},
    params:
        judge=lambda w: CONFIG["judges"][w.judge],
        dtype=lambda w: PLAN.setting("evaluation", judging_model(w))["dtype"],
        work=PATHS.resume("judgements", "{judge}/{benchmark}"),
        version=VERSION["judge_responses"],
    script:
        f"{SCRIPTS}/judge_responses.py"
