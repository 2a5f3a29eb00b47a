rule encode_samples:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
    output:
        PATHS.samples("{model}", "{dataset}"),
    log:
        PATHS.log("encode_samples", "{model}/{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        max_length_tokens=CONFIG["gradients"]["max_length_tokens"],
        version=VERSION["encode_samples"],
    script:
        f"{SCRIPTS}/encode_samples.py"


# One input of the gradients, whichever methods' checks there are: those go by the selection, and
# another set of inputs would make the gradients again. A checkpoint, as `check_trust` is.
checkpoint await_trust:
    input:
        # A check that is made again, or gone past, makes nothing again.
        lambda w: list(map(ancient, PLAN.trust_before(w.model, w.state, w.direction))),
    output:
        touch(PATHS.checked("{model}", "{state}", "{direction}")),
    localrule: True


rule collect_gradients:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        state=PATHS.state("{model}", "{state}"),
        adapter=lambda w: PLAN.state_run(w.model, w.state),
        direction=PATHS.direction("{model}", "{direction}"),
        after=lambda w: list(map(ancient, PLAN.checked(w.model, w.state, w.direction))),
    output:
        samples=PATHS.shard("{model}", "{dataset}", "{state}", "{direction}", "{shard}", "samples"),
        modules=PATHS.shard("{model}", "{dataset}", "{state}", "{direction}", "{shard}", "modules"),
    log:
        PATHS.log("collect_gradients", "{model}/{dataset}/{state}/{direction}/{shard}"),
    benchmark:
        PATHS.times("collect_gradients", "{model}/{dataset}/{state}/{direction}/{shard}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        checkpoint=lambda w: PLAN.entry("directions", w.direction, w.model)["checkpoint"],
        gradients=CONFIG["gradients"],
        version=VERSION["collect_gradients"],
    script:
        f"{SCRIPTS}/collect_gradients.py"


rule search_layers:
    input:
        model=PATHS.model("{model}"),
        prompts=lambda w: PATHS.benchmark(PLAN.layer_prompts(w.model, w.layer)),
    output:
        PATHS.layer_search("{model}", "{layer}"),
    log:
        PATHS.log("search_layers", "{model}/{layer}"),
    benchmark:
        PATHS.times("search_layers", "{model}/{layer}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        search=lambda w: picked(
            PLAN.entry("layers", w.layer, w.model),
            "first",
            "factors",
            "max_new_tokens",
            may_have=["last"],
        ),
        judge=lambda w: CONFIG["judges"][PLAN.entry("layers", w.layer, w.model)["judge"]],
        generation=lambda w: picked(PLAN.setting("evaluation", w.model), "batch_size", "dtype"),
        version=VERSION["search_layers"],
    script:
        f"{SCRIPTS}/search_layers.py"


rule choose_layer:
    input:
        search=lambda w: PLAN.layer_search(w.model, w.layer),
        model=PATHS.model("{model}"),
    output:
        PATHS.layer("{model}", "{layer}"),
    log:
        PATHS.log("choose_layer", "{model}/{layer}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        layer=lambda w: PLAN.entry("layers", w.layer, w.model).get("layer"),
        version=VERSION["choose_layer"],
    script:
        f"{SCRIPTS}/choose_layer.py"


rule collect_hidden_states:
    input:
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
        layer=PATHS.layer("{model}", "{layer}"),
    output:
        PATHS.hidden_states("{model}", "{dataset}", "{layer}", "{token}", "{shard}"),
    log:
        PATHS.log("collect_hidden_states", "{model}/{dataset}/{layer}/token{token}/{shard}"),
    benchmark:
        PATHS.times("collect_hidden_states", "{model}/{dataset}/{layer}/token{token}/{shard}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        gradients=CONFIG["gradients"],
        version=VERSION["collect_hidden_states"],
    script:
        f"{SCRIPTS}/collect_hidden_states.py"


rule make_anchor:
    input:
        model=PATHS.model("{model}"),
        rows=lambda w: PATHS.dataset(PLAN.entry("anchors", w.anchor, w.model)["data"]),
    output:
        PATHS.anchor("{model}", "{anchor}"),
    log:
        PATHS.log("make_anchor", "{model}/{anchor}"),
    benchmark:
        PATHS.times("make_anchor", "{model}/{anchor}")
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        anchor=lambda w: picked(PLAN.entry("anchors", w.anchor, w.model), "first_tokens")
        | picked(CONFIG["gradients"], "max_length_tokens", "dtype"),
        version=VERSION["make_anchor"],
    script:
        f"{SCRIPTS}/make_anchor.py"


rule collect_full_gradients:
    input:
        unpack(lambda w: {a: PATHS.anchor(w.model, a) for a in PLAN.gradient_anchors[w.reading]}),
        model=PATHS.model("{model}"),
        rows=PATHS.dataset("{dataset}"),
    output:
        samples=PATHS.gradients("{model}", "{dataset}", "{reading}", "{shard}", "samples"),
        products=PATHS.gradients("{model}", "{dataset}", "{reading}", "{shard}", "products"),
    log:
        PATHS.log("collect_full_gradients", "{model}/{dataset}/{reading}/{shard}"),
    benchmark:
        PATHS.times("collect_full_gradients", "{model}/{dataset}/{reading}/{shard}")
    wildcard_constraints:
        reading=any_of(PLAN.gradient_anchors),
    conda:
        ENVIRONMENT
    threads: threads_of("infer")
    resources:
        **resources_of_one_gpu("infer"),
    params:
        anchors=lambda w: list(PLAN.gradient_anchors[w.reading]),
        gradients=CONFIG["gradients"],
        version=VERSION["collect_full_gradients"],
    script:
        f"{SCRIPTS}/collect_full_gradients.py"
