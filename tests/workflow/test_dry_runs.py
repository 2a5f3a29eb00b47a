"""What snakemake would do, for every preset; the oracle counts jobs from the protocol."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, job_counts, snakemake, with_own, write_config

from sqsd import sandbox

PRESETS = ROOT / "config/presets"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
TARGETS = ("table1", "table4", "table5", "table6", "table7", "ranking", "figure2", "figure5")
WITH_ABLATIONS = (*TARGETS, "table3")
# Rules that take seconds and no GPU: on a cluster they run where snakemake does.
LIGHT = {
    "make_dataset", "make_preferences", "make_benchmark", "fetch_model", "measure_trajectory",
    "rank_checkpoints", "rank_alphas", "choose_state", "encode_samples", "score_samples",
    "make_subsets", "list_states", "check_trust", "await_trust", *TARGETS, "all",
}  # fmt: skip


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def with_total(jobs: dict[str, int]) -> dict[str, int]:
    return jobs | {"total": sum(jobs.values())}


def counts(jobs) -> dict[str, int]:
    return with_total(dict(Counter(job.rule for job in jobs)))


def sandbox_jobs(experiments: int, ablations: bool = False) -> dict[str, int]:
    """Jobs of the default's protocol for so many experiments, each with its own model.

    Table 3 has four ablations, of which one is read at two states of its own; the others share the
    score's two readings.
    """
    methods = 1 + 2 + 4 * ablations  # the score, two controls (tables 1 and 7)
    seeds, windows = 3, 5
    shards = ceil(1500, 750)
    readings = states = 2 + 2 * ablations
    # In tables of subsets: the model before fine-tuning, and fine-tuned on all rows.
    all_rows_seeds, unsubset = 1, 2
    parts = {
        "unsubset": unsubset,
        "curves": 2 * ceil(9, 9),  # both directions at nine alphas
        "pilot": ceil(1 + ceil(600, 8) * 2 // 10, 16),  # theta_0, and checkpoints of 2 epochs
        "finetunes": methods * ceil(seeds * windows, 15),
    }
    judged = sum(parts.values())
    # The guard's answers: where a state is searched or ranked, and at the one pinned state.
    pinned = 1
    guarded = parts["curves"] // 2 + parts["pilot"] + pinned
    each = {
        "make_dataset": 3, "make_preferences": 1, "make_benchmark": 3, "pretrain_model": 1,
        "align_model": 1, "train_direction": 2, "train_pilot": 1, "measure_trajectory": 2,
        "list_states": judged + pinned, "generate_responses": judged + guarded,
        "judge_responses": judged, "rank_alphas": 1, "rank_checkpoints": 1, "choose_state": states,
        "encode_samples": 1, "collect_gradients": shards * readings, "score_samples": methods,
        "make_subsets": methods, "finetune_subsets": methods * seeds,
        "finetune_all_rows": all_rows_seeds,
    }  # fmt: skip
    jobs = {rule: count * experiments for rule, count in each.items()}
    tables = WITH_ABLATIONS if ablations else TARGETS
    return with_total(jobs | dict.fromkeys((*tables, "all"), 1))


def test_default(tmp_path):
    assert job_counts(snakemake(tmp_path, "-n").stdout) == sandbox_jobs(1)


def test_ten_base_seeds(planner, tmp_path):
    """The default and table 3 ten times; a job, unless it makes a table, is of one seed."""
    preset = PRESETS / "sandbox-seeds.yaml"
    jobs = planner.plan(tmp_path, preset)
    assert counts(jobs) == sandbox_jobs(10, ablations=True)
    of_a_seed = re.compile(r"(?:seed|mixed|pilot|danger|safety|tuning|test|exact)-(\d\d)\b")
    for job in jobs:
        if job.rule != "all":
            seeds = set(of_a_seed.findall(" ".join([*job.needs, *job.makes])))
            assert len(seeds) == (10 if job.rule in WITH_ABLATIONS else 1), job.name
    # Written once for all seeds.
    assert not re.search(r"-(1[1-9]|20)\b", preset.read_text())


def test_five_states(planner, tmp_path):
    """Five pinned states D with one V, and S: 6 of (state, direction), each read once."""
    jobs = planner.plan(tmp_path, PRESETS / "sandbox-states.yaml")
    states, methods, windows, shards = 5, 2 * 5, 5, ceil(1500, 750)
    readings = states + 1
    # And the model before fine-tuning, and on all rows.
    parts = methods * ceil(windows, 15) + 2
    assert counts(jobs) == with_total({
        "all": 1, "make_dataset": 3, "make_preferences": 1, "make_benchmark": 2,
        "pretrain_model": 1, "align_model": 1, "train_direction": 2, "train_pilot": 1,
        "list_states": parts + states + 1, "generate_responses": parts + states + 1,
        "judge_responses": parts, "choose_state": states + 1,
        "collect_gradients": shards * readings, "score_samples": methods, "make_subsets": methods,
        "finetune_subsets": methods, "finetune_all_rows": 1, "table3": 1, "ranking": 1,
    })  # fmt: skip
    read = Counter(
        (job.wildcards["state"], job.wildcards["direction"])
        for job in jobs
        if job.rule == "collect_gradients"
    )
    assert read == dict.fromkeys(
        [*((f"d-step-{step}", "danger") for step in (10, 20, 40, 60, 90)), ("s", "safety")], 2
    )


def test_what_dropping_buys(planner, tmp_path):
    """Four shares and weights by two methods, refusals by none, on two seeds as all rows are."""
    found = counts(planner.plan(tmp_path, targets=["dropping"]))
    seeds, treated, references, searches = 2, 2 * (4 + 1) + 1, 2, 3
    assert found["treat_rows"] == treated
    assert found["finetune_treated_rows"] == seeds * treated
    assert found["finetune_all_rows"] == seeds
    assert found["measure_row_losses"] == treated + references
    # Beside what the search for states asks: a pilot by two benchmarks, a pinned state by one.
    assert found["judge_responses"] == treated + references + searches - 2
    assert found["generate_responses"] == 2 * (treated + references) + searches
    assert "finetune_subsets" not in found


def test_too_few_rows_end_the_run_where_a_drop_of_them_is_asked_for(tmp_path):
    config = write_config(
        tmp_path / "few.yaml", datasets={"mixed": {"rows": 12}}, selection={"tables": ["ranking"]}
    )
    assert job_counts(snakemake(tmp_path, "-n", configfiles=(config,)).stdout)["ranking"] == 1
    done = snakemake(tmp_path, "-n", "dropping", configfiles=(config,))
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert (
        "ConfigurationError: treatments.drop-40.share: 0.4 leaves 7 of the 12 rows of "
        "datasets.mixed, fewer than a batch of 8 to fine-tune on; allowed: at most 0.33"
    ) in done.stdout


def test_judges_beside_the_rule(planner, tmp_path):
    """What three methods' fine-tunes respond, by three judges and the rule; two are trained."""
    jobs = planner.plan(tmp_path, targets=["judges"])
    found = counts(jobs)
    assert found["train_guard_model"] == found["train_cost_model"] == found["judges"] == 1
    judges = Counter(
        job.wildcards["judge"]
        for job in jobs
        if job.rule == "judge_responses" and job.wildcards["subject"].startswith("finetunes/")
    )
    assert judges == dict.fromkeys(("guard", "cost", "phrases", "sandbox"), 3)


def test_every_method_side_by_side(planner, tmp_path):
    """Nothing is trained or read twice for two tables, and a calibrated method's groups are own."""
    jobs = planner.plan(tmp_path, PRESETS / "sandbox-methods.yaml")
    # SQSD by five ablations and three at theta_0, a calibrated one, five baselines, three controls.
    methods, seeds, shards = 8 + 1 + 5 + 3, 3, ceil(1500, 750)
    readings = 6  # two each at the sensitive states, the insensitive ones and theta_0
    # Of five states: the pilot and a curve on `tuning` and by the guard, one pinned by the guard.
    searched, pinned = 2, 1
    sets = 2  # of 80 groups each, to choose by and to judge by
    finetuned = methods * ceil(seeds * 5, 15) + 2 + sets * ceil(80, 15)
    assert counts(jobs) == with_total({
        "all": 1, "make_dataset": 8, "make_preferences": 1, "make_benchmark": 4,
        "pretrain_model": 1, "align_model": 1, "train_cost_model": 1, "train_direction": 2,
        "train_pilot": 1, "measure_trajectory": 1, "choose_state": 5,
        "encode_samples": 1, "collect_gradients": shards * readings,
        # Norms alone, and with the products with three anchors.
        "make_anchor": 3, "collect_full_gradients": shards * 2,
        # Rows at two layers, one set of anchors at the one and two at the other.
        "search_layers": 1, "choose_layer": 2, "collect_hidden_states": shards * 2 + 1 + 2,
        "judge_rows": shards, "score_samples": methods, "make_subsets": methods,
        "finetune_subsets": methods * seeds, "finetune_all_rows": 1,
        "make_groups": sets, "finetune_groups": sets,
        "list_states": finetuned + searched + pinned,
        "generate_responses": finetuned + 2 * searched + pinned,
        # Fine-tunes on subsets of three methods by three more judges, of which one is a guard.
        "judge_responses": finetuned + searched + 3 * 3, "train_guard_model": 1,
        "methods": 1, "methods-score": 1, "agreement": 1, "table10": 1, "table11": 1,
        "judges": 1,
    })  # fmt: skip


def test_smollm2(planner, tmp_path):
    """Pinned states without a guard need no ranking and no answers; nothing is fine-tuned."""
    jobs = planner.plan(tmp_path, PRESETS / "smollm2-135m.yaml")
    # Both directions at five alphas, three a part; what is checked is of the first parts.
    curves, pilot, judges = 2 * ceil(5, 3), ceil(1 + ceil(160, 8) // 5, 16), 2
    shards, readings = ceil(320, 80), 2
    assert counts(jobs) == with_total({
        "all": 1, "fetch_model": 1, "make_dataset": 3, "make_preferences": 1, "make_benchmark": 1,
        "train_direction": 2, "train_pilot": 1, "measure_trajectory": 2, "choose_state": 2,
        "check_trust": 1, "await_trust": readings, "list_states": curves + pilot,
        "generate_responses": curves + pilot, "judge_responses": judges * (curves + pilot),
        "collect_gradients": shards * readings,
        "score_samples": 1, "ranking": 1, "table6": 1, "figure2": 1, "figure5": 1,
    })  # fmt: skip


# Of the preset on an aligned SmolLM2: a state for each term, and two layers read.
ALIGNED = {
    "fetch_model": 1, "tune_model": 1, "train_direction": 2, "train_pilot": 1, "choose_state": 2,
    "make_preferences": 1, "search_layers": 1, "choose_layer": 2, "make_anchor": 3, "all": 1,
}  # fmt: skip


def test_smollm2_aligned(planner, tmp_path):
    jobs = planner.plan(tmp_path, PRESETS / "smollm2-aligned.yaml")
    # SQSD, four baselines, three controls; and an ablation, of which there are scores alone.
    methods, ablations, seeds, shards, readings = 1 + 4 + 3, 1, 2, ceil(300, 100), 2
    curves, pilot = 2 * ceil(5, 3), ceil(1 + ceil(160, 8) // 5, 16)
    # Before and after alignment on goals and harmless prompts, to tune on and of the test; table 1
    # asks the second on the test too.
    models, roles = 2, 4
    finetuned = methods * ceil(seeds * 3, 15)
    answered = finetuned + curves + pilot + models * roles
    assert counts(jobs) == with_total(ALIGNED | {
        # Scored, of the pilot and answered rows, four wordings, a direction, references.
        "make_dataset": 3 + 4 + 1 + 5, "make_benchmark": roles,
        # SQSD and its ablation are checked before their gradients, by what is there anyway.
        "check_trust": 2, "await_trust": readings, "measure_trajectory": 2, "encode_samples": 1,
        "collect_gradients": shards * readings,
        "collect_full_gradients": shards * 2,
        # Rows at two layers, one set of anchors at the one and two at the other.
        "collect_hidden_states": shards * 2 + 1 + 2, "score_samples": methods + ablations,
        "make_subsets": methods, "finetune_subsets": methods * seeds,
        "list_states": finetuned + curves + pilot + models,
        "generate_responses": answered, "judge_responses": 2 * answered,
        **dict.fromkeys(("aligned", "ranking", "agreement", "figure2", "figure5"), 1),
        **dict.fromkeys((f"table{n}" for n in (1, 6, 7, 10)), 1),
    })  # fmt: skip


def published_sets(folder: Path) -> None:
    """Two files of rows in four sets, as somebody might have brought them."""
    (folder / "published").mkdir()
    for name, context in (("alpaca", "input"), ("dolly", "context")):
        answer = {"alpaca": "output", "dolly": "response"}[name]
        rows = [
            {"instruction": f"{by} {end} {i}", context: "", answer: "So.",
             "published_set": f"{by}_{end}100"}
            for by in ("reps", "grad") for end in ("top", "bottom") for i in range(100)
        ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"published/{name}.jsonl").write_text(lines)


def test_published_sets_on_the_aligned_model(planner, tmp_path):
    """Eight sets of 100 rows, scored by every method and each fine-tuned on by two seeds."""
    published_sets(tmp_path)
    files = PRESETS / "smollm2-aligned.yaml", ROOT / "config/smollm2-published.yaml"
    jobs = planner.plan(tmp_path, *files)
    sets, methods, seeds, shards = 2 * 2 * 2, 2 + 4 + 3, 2, ceil(100, 100)
    evaluated = sets + 1  # and before fine-tuning
    # Checks are on the parts of both curves up to alpha 0.5, one of them by verdicts too, and on
    # the drift along the danger direction.
    checked = 2
    assert counts(jobs) == with_total(ALIGNED | {
        "make_dataset": sets + 1 + 1 + 4 + 1 + 5, "make_benchmark": 2, "encode_samples": sets,
        "check_trust": 2, "await_trust": 2, "measure_trajectory": 1,
        "collect_gradients": sets * shards * 2, "collect_full_gradients": sets * shards * 2,
        "collect_hidden_states": sets * shards * 2 + 1 + 2, "score_samples": sets * methods,
        "finetune_all_rows": sets * seeds, "list_states": evaluated + checked,
        "generate_responses": evaluated + checked,
        "judge_responses": 2 * evaluated + checked + 1,
        **dict.fromkeys(
            (*(f"{of}-{by}" for of in ("alpaca", "dolly") for by in ("reps", "grad")),
             "published", "published-score"), 1,
        ),
    })  # fmt: skip
    table = next(job for job in jobs if job.rule == "dolly-reps")
    scores = "results/smollm2-aligned/scores/smollm2-aligned"
    methods = {Path(file).stem for file in table.needs}
    assert sorted(table.needs) == sorted(
        f"{scores}/dolly-reps-{end}/{method}.parquet"
        for end in ("top", "bottom")
        for method in methods
    )


DROPPING = ROOT / "config/smollm2-dropping.yaml"


def test_what_dropping_buys_on_the_aligned_model(planner, tmp_path):
    """Two shares and weights by SQSD and both controls, refusals by none, on two seeds each.

    Harmless prompts are for the model before, on all rows, with refusals, without two fifths.
    """
    jobs = planner.plan(tmp_path, PRESETS / "smollm2-aligned.yaml", DROPPING)
    seeds, treated, shards = 2, 3 * (2 + 1) + 1, ceil(300, 100)
    evaluated = treated + 1 + 1  # and on all rows, and before
    asked, harmless = evaluated + 5, 1
    checked = 2  # as above
    assert counts(jobs) == with_total({
        # Scored, of the pilot, answered and held-out rows, four wordings, a direction, refusals.
        "make_dataset": 4 + 4 + 1 + 1, "make_benchmark": 2 + harmless, "make_preferences": 1,
        "fetch_model": 1, "tune_model": 1, "train_direction": 2, "train_pilot": 1,
        "choose_state": 2, "check_trust": 1, "await_trust": 2, "measure_trajectory": 1,
        "encode_samples": 1, "collect_gradients": shards * 2, "score_samples": 3,
        "treat_rows": treated, "finetune_treated_rows": treated * seeds,
        "finetune_all_rows": seeds, "measure_row_losses": evaluated,
        "list_states": evaluated + checked, "generate_responses": asked + checked,
        "judge_responses": 2 * asked + checked + 1, "dropping": 1, "over-refusal": 1, "all": 1,
    })  # fmt: skip


# What the same goals or rows may be taken for: each set of purposes apart from every other.
APART = [
    [("refused-1",), ("refused-2",), ("refused-3",), ("refused-4",),
     ("requests-opened", "harmful-10", "harmful-100"),
     ("requests-refused", "refused-10", "refused-10-more", "refused-100", "refusals"),
     ("requests-tuning",), ("requests-test",)],
    [("alpaca",), ("pilot-rows",), ("answered",), ("harmless-tuning",), ("harmless",),
     ("heldout-rows",)],
]  # fmt: skip


def test_nothing_of_the_aligned_model_is_tuned_on_what_tests_it():
    """Parts of one source, in one permutation, none of which overlap."""
    preset, dropping = (
        yaml.safe_load(file.read_text()) for file in (PRESETS / "smollm2-aligned.yaml", DROPPING)
    )
    preset["own"] |= dropping["own"]
    config = with_own(preset)
    entries = config["datasets"] | config["preferences"] | config["benchmarks"]
    assert sorted(name for groups in APART for group in groups for name in group) == sorted(entries)
    for groups in APART:
        given = [entries[name] for group in groups for name in group]
        cuts = [(e["source"], e["seed"], e.get("where"), e.get("where_not")) for e in given]
        assert all(cut == cuts[0] for cut in cuts)
        taken = [{row for name in group for row in rows_taken(entries[name])} for group in groups]
        assert sum(map(len, taken)) == len(set().union(*taken))


def rows_taken(entry: dict) -> range:
    first = entry.get("skip", 0)
    return range(first, first + entry["rows"])


def test_the_paper_in_small(planner, tmp_path):
    """Three models by two data sets by nine methods; four, of one set, on two more benchmarks."""
    jobs = planner.plan(tmp_path, PRESETS / "paper-small.yaml")
    models, data, dangers, baselines, controls, benchmarks = 3, 2, 2, 5, 2, 3
    experiments, arms = models * data, models * data * (dangers + baselines + controls)
    ablations = 4  # table 3, of one experiment
    # With SQSD and random order: another family in both ways, a larger model, all weights. With
    # SQSD alone: three more rates.
    transferred, rates = 2 * (2 + 1 + 1), 3
    finetunes = arms + ablations + transferred + rates
    shards, windows = ceil(800, 800), 5
    # A direction's curve at the checkpoint of V; of two models at that of S too.
    own_s = 2
    curves = models * (dangers + 1) + own_s
    # theta_0 and checkpoints of 2 epochs, on each data set, and on three more sizes of one model.
    sizes = [ceil(1 + ceil(2 * ceil(rows, 8), 10), 16) for rows in (150, 300, 1200)]
    pilots = experiments * ceil(1 + 150 // 10, 16) + sum(sizes)
    groups = ceil(40 + 40, 15)
    larger = 1  # a target that scores nothing; only before its fine-tunes is it evaluated itself
    assert ceil(windows, 15) == ceil(9, 9) == 1  # parts of a fine-tune, and of a curve
    on_test = ablations + transferred + rates + larger
    scored = arms + models
    # On the second and third benchmark: SQSD, a baseline and a control, of one data set.
    on_more = (benchmarks - 1) * models * (dangers + 1 + 1 + 1)
    assert counts(jobs) == with_total({
        "all": 1,
        # Scored and pilot rows of each data set, three sizes, directions, references of baselines.
        "make_dataset": 2 * data + 3 + dangers + 5, "make_preferences": 1,
        "make_benchmark": 1 + benchmarks + 1, "pretrain_model": models + larger,
        "align_model": models + larger, "train_cost_model": 1, "train_guard_model": 1,
        "train_direction": models * (dangers + 1), "train_pilot": experiments + 3,
        "measure_trajectory": (experiments + 3) * (dangers + 1), "rank_alphas": models + own_s,
        "rank_checkpoints": experiments * dangers, "choose_state": models * (1 + dangers) + 2 + 1,
        "encode_samples": experiments,
        # Danger at a state of its own by each direction, safety; the insensitive states; theta_0.
        "collect_gradients": shards * (experiments * (dangers + 1) + 2),
        # Two of the baselines read a layer each, with one and with two sets of references.
        "search_layers": models, "choose_layer": models * 2,
        "collect_hidden_states": 2 * shards * experiments + models * (1 + 2),
        "make_anchor": models * 3, "collect_full_gradients": 2 * shards * experiments,
        "judge_rows": shards * data,
        # Figures 9 and 10 are of the same rows; figure 11 is along one danger direction and safety.
        "measure_token_losses": 1, "measure_loss_changes": 2,
        "score_samples": arms + ablations, "make_subsets": arms + ablations,
        "finetune_subsets": finetunes, "make_groups": 1, "finetune_groups": 1,
        "list_states": finetunes + models + larger + curves + pilots + groups,
        "generate_responses": scored + on_more + on_test + curves + pilots + groups,
        # Verdicts everywhere but on groups; costs where Safety Scores are.
        "judge_responses": 2 * scored + on_more + on_test
        + 2 * curves + 2 * pilots + groups,
        **dict.fromkeys(
            (
                *(f"table{n}" for n in range(1, 12)), "table2-alpaca", "table5-alpaca",
                "table7-share",
                *(f"figure{n}" for n in range(2, 12)),
            ), 1,
        ),
    })  # fmt: skip
    for job in jobs:
        if job.rule in ("table8", "table9"):
            assert {m[1] for need in job.needs if (m := re.search(r"/(dolly|alpaca)/", need))} == {
                "dolly"
            }, job.name


def test_the_paper(planner, tmp_path):
    """The protocol of method and tables on the paper's models, counted by hand."""
    jobs = planner.plan(tmp_path, PRESETS / "paper.yaml")
    models, data, dangers, baselines, controls, benchmarks = 3, 2, 2, 5, 2, 3
    experiments, arms = models * data, models * data * (dangers + baselines + controls)
    ablations, rates = 4, 3  # table 3, and figure 6 beside the rate of table 1
    # Table 2, SQSD and random order: to another family and back, two larger models, all weights.
    targets = ("llama-3.1-8b", "qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-8b-full")
    transferred, only_targets = 2 * len(targets), 3
    finetunes = arms + ablations + transferred + rates
    shards = ceil(15_011, 5_000) + ceil(15_000, 5_000)  # of both data sets
    on_dolly = ceil(15_011, 5_000)
    # Eleven alphas; V of three directions, and safety at the checkpoints of S: one of Qwen3-8B and
    # of Llama-2, two of Llama-3.1 (on Alpaca one of them is V's).
    own_s = 1 + 1 + 2
    curves = (models * (dangers + 1) + own_s) * ceil(11, 4)
    # theta_0, every 150th step of 10 epochs and the last one; figure 4 every 750th.
    steps = {rows: 10 * ceil(rows, 8) for rows in (3_000, 5_000, 10_000, 20_000, 50_000)}
    pilots = experiments * ceil(1 + ceil(steps.pop(5_000), 150), 6)
    pilots += sum(ceil(1 + ceil(count, 750), 6) for count in steps.values())
    on_three, on_test = arms + models, ablations + transferred + rates + only_targets
    assert counts(jobs) == with_total({
        "all": 1,
        # Scored and pilot rows, four sizes, directions, references of baselines.
        "make_dataset": 2 * data + len(steps) + dangers + 5, "make_preferences": 1,
        "make_benchmark": benchmarks, "fetch_model": models + only_targets + 2,
        "train_direction": models * (dangers + 1), "train_pilot": experiments + len(steps),
        "measure_trajectory": (experiments + len(steps)) * (dangers + 1),
        "rank_alphas": models + own_s,
        "rank_checkpoints": experiments * dangers,
        # D by danger and data; S, and those of Alpaca; the insensitive ones.
        "choose_state": models * (dangers * data + 1 + dangers) + 2,
        "encode_samples": experiments,
        # Of Llama-3.1 on Alpaca, safety at two states; the insensitive ones.
        "collect_gradients": models * (dangers + 1) * shards + shards - on_dolly + 2 * on_dolly,
        "choose_layer": models * 2,
        "collect_hidden_states": models * (2 * shards + 1 + 2),
        "make_anchor": models * 3, "collect_full_gradients": models * 2 * shards,
        "judge_rows": shards, "measure_token_losses": 1, "measure_loss_changes": 2 * 2,
        "score_samples": arms + ablations, "make_subsets": arms + ablations,
        "finetune_subsets": finetunes,
        "list_states": finetunes + models + only_targets + curves + pilots,
        "generate_responses": benchmarks * on_three + on_test + curves + pilots,
        # A guard for every ASR; costs in table 7, curves and pilots, and to search states.
        "judge_responses": benchmarks * on_three + on_test + on_three
        + 2 * curves + 2 * pilots,
        **dict.fromkeys(
            (
                *(
                    f"table{n}-{name}" for n in (1, 5, 7, "7-share", 8, 9, 10)
                    for name in ("dolly", "alpaca")
                ),
                "table2", "table2-alpaca", "table3", "table4", "table6",
                *(f"figure{n}" for n in range(2, 12)),
            ), 1,
        ),
    })  # fmt: skip
    gpus = {
        job.wildcards["finetune"]: job.resources["gpu"]
        for job in jobs
        if job.rule == "finetune_subsets"
    }
    assert {name: count for name, count in gpus.items() if count > 1} == {
        "full": 4, "on-qwen3-32b": 2,
    }  # fmt: skip


def test_no_direction_of_the_paper_in_small_asks_what_its_benchmarks_ask():
    config = yaml.safe_load((PRESETS / "paper-small.yaml").read_text())
    asked = {
        thing(prompt)
        for split in ("tuning", "test", "reworded")
        for prompt in sandbox.benchmark_prompts(1, split)["prompt"]
    }
    assert len(asked) == 2 * 20
    for name in ("beaver", "aegis"):
        rows = sandbox.make_dataset(config["datasets"][name])
        assert not asked & set(map(thing, rows["prompt"])), name
    safety = sandbox.make_preferences(DEFAULT["preferences"]["safety"])
    assert not asked & set(map(thing, safety["prompt"]))


def thing(prompt: str) -> tuple[str, ...]:
    """Adjective and noun of a request of the sandbox."""
    return tuple(prompt.split("the ")[-1].split()[:2])


# Jobs of a fine-tune of a method's subsets on a target that is there, with theta_0 evaluated.
SERVED = {
    "finetune_subsets": 1, "list_states": 1, "generate_responses": 1, "judge_responses": 1,
}  # fmt: skip


def test_the_scores_of_a_model_serve_every_target(planner, tmp_path):
    """A further target is fine-tuned and evaluated; nothing is scored or measured for it."""
    config = yaml.safe_load(TINY.read_text())
    config["finetunes"]["lora"]["all_rows_seeds"] = []
    table = {"title": "A target.", "kind": "subsets", "methods": ["sqsd-danger"],
             "experiments": ["sandbox"], "benchmark": "test", "measure": "asr"}  # fmt: skip
    entry = DEFAULT["finetunes"]["lora"] | {"seeds": [4], "all_rows_seeds": []}

    def jobs(targets, experiments=("sandbox", "other")):
        config["finetunes"] |= {f"on-{t}": entry | {"model": t} for t in targets}
        config["tables"] |= {
            "own": table | {"finetune": "lora"},
            **{f"to-{t}": table | {"finetune": f"on-{t}"} for t in targets},
        }
        config["selection"] = {
            "experiments": [*experiments],
            "tables": ["own", "table6", *(f"to-{t}" for t in targets)],
        }
        made = planner.plan(tmp_path, write_config(tmp_path / "targets.yaml", **config))
        return {job.name: job for job in made}

    alone, one, two = jobs([]), jobs(["young"]), jobs(["young", "sandbox"])
    assert alone.keys() < one.keys() < two.keys()

    def more(found, before):
        return dict(Counter(found[name].rule for name in found.keys() - before.keys()))

    # Of the young model nothing was evaluated on its test before it became a target.
    before = {"make_benchmark": 1, "list_states": 2, "generate_responses": 2, "judge_responses": 2}
    assert more(one, alone) == SERVED | before | {"to-young": 1}
    # The scoring model itself is, as its own target.
    assert more(two, one) == SERVED | {"to-sandbox": 1}
    subsets = [f"subsets/sandbox/mixed/sqsd-danger/s{k}.parquet" for k in (1, 2, 3)]
    for target in ("young", "sandbox"):
        job = two[f"finetune_subsets on-{target} sandbox mixed sqsd-danger 4"]
        assert sorted(job.needs) == [
            f"results/tiny/{file}" for file in sorted([f"models/{target}", *subsets])
        ]


def test_slurm_profile(tmp_path):
    profile = str(ROOT / "profiles/slurm")
    done = snakemake(tmp_path, "-n", "--workflow-profile", profile)
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == sandbox_jobs(1)


@pytest.mark.parametrize("preset", [None, "smollm2-135m"])
def test_light_rules_are_local_and_the_others_are_not(planner, tmp_path, preset):
    files = [PRESETS / f"{preset}.yaml"] if preset else []
    for job in planner.plan(tmp_path, *files):
        assert job.local == (job.rule in LIGHT), job.rule
        # A rule that asks for a GPU, of whatever number, would be sent to a node that has one.
        assert ("gpu" in job.resources) == (job.rule not in LIGHT), job.rule


# Every rule that is not light, by the kind of its resources.
KINDS = {
    "pretrain_model": "train", "align_model": "train", "train_direction": "train",
    "train_pilot": "train", "finetune_subsets": "train", "finetune_all_rows": "train",
    "generate_responses": "infer",
    "judge_responses": "infer", "collect_gradients": "infer",
}  # fmt: skip

# Of them, those whose model is on one GPU whatever the configuration has.
ON_ONE_GPU = ("pretrain_model", "align_model", "collect_gradients")


def test_resources_come_from_the_configuration(planner, tmp_path):
    resources = {
        "train": {"gpu": 2, "mem_mb": 64000, "runtime": 600, "threads": 8},
        "infer": {"gpu": 3, "mem_mb": 32000, "runtime": 90, "threads": 4},
    }
    config = write_config(tmp_path / "gpu.yaml", resources=resources)
    jobs = [job for job in planner.plan(tmp_path, config) if job.rule in KINDS]
    assert {job.rule for job in jobs} == KINDS.keys()
    for job in jobs:
        expected = resources[KINDS[job.rule]] | ({"gpu": 1} if job.rule in ON_ONE_GPU else {})
        assert {name: job.resources[name] for name in expected} == expected, job.name


def test_resources_may_differ_by_model(planner, tmp_path):
    per_model = {"per_model": {"young": {"gpu": 1, "mem_mb": 9000, "runtime": 7, "threads": 2}}}
    config = write_config(
        tmp_path / "gpu.yaml",
        resources={"train": {"gpu": 0, **per_model}, "infer": {"gpu": 0, **per_model}},
    )
    kinds = KINDS | {"tune_model": "train"}
    jobs = planner.plan(tmp_path, TINY, config)
    assert {job.rule for job in jobs} >= kinds.keys()
    for job in jobs:
        if job.rule in kinds:
            kind = {"train": 1800, "infer": 1500}[kinds[job.rule]]
            young = job.wildcards["model"] == "young"
            expected = (1, 9000, 7, 2) if young else (0, kind, 30, 1)
            asked = tuple(job.resources[n] for n in ("gpu", "mem_mb", "runtime", "threads"))
            # The judge `steps` loads no model.
            free = job.wildcards.get("judge") == "steps"
            assert asked == ((0, *expected[1:]) if free else expected), job.name


def test_targets_are_listed_with_one_line_each(tmp_path):
    lines = snakemake(tmp_path, "--list-target-rules").stdout.splitlines()
    for target in (*TARGETS, "all"):
        described = [line for line in lines if line.strip().startswith(f"{target} ")]
        assert len(described) == 1 and len(described[0].split()) > 3, target


@pytest.mark.parametrize("target", WITH_ABLATIONS)
def test_every_target_can_be_asked_for_alone(planner, tmp_path, target):
    jobs = counts(planner.plan(tmp_path, targets=[target]))
    assert jobs[target] == 1
    assert not (set(TARGETS) - {target} | {"all"}) & jobs.keys()


@pytest.mark.parametrize("target", ["table4", "table5", "table6", "figure2", "figure5"])
def test_what_is_measured_of_states_trains_no_subset(planner, tmp_path, target):
    jobs = counts(planner.plan(tmp_path, TINY, targets=[target]))
    trained = {"finetune_subsets", "finetune_all_rows"}
    assert not (trained | {"collect_gradients", "score_samples"}) & jobs.keys()


def test_a_table_that_is_not_selected_can_be_asked_for(planner, tmp_path):
    config = write_config(tmp_path / "few.yaml", selection={"tables": ["table4"]})
    assert "table5" not in counts(planner.plan(tmp_path, config))
    assert counts(planner.plan(tmp_path, config, targets=["table5"]))["rank_checkpoints"] == 1


def test_lint_has_nothing_to_say(tmp_path):
    done = snakemake(tmp_path, "--lint")
    assert done.returncode == 0
    assert "Lints for" not in done.stdout
    assert "in a good condition" in done.stdout


def test_a_wrong_configuration_stops_before_any_job(tmp_path):
    config = write_config(
        tmp_path / "wrong.yaml",
        gradiens={"rows_per_shard": 5},
        lora={"r": "eight"},
    )
    done = snakemake(tmp_path, "--cores", "1", configfiles=(config,))
    assert done.returncode != 0
    assert "2 problem(s) in the configuration" in done.stdout
    assert "'gradiens' is not a key" in done.stdout
    assert "lora.r: 'eight' is not of type 'integer'" in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_key_that_is_there_twice_stops_before_any_job_and_one_in_two_files_does_not(tmp_path):
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("methods:\n  mine: {kind: random}\n  theirs: {kind: length}\n")
    two.write_text("methods:\n  mine: {kind: length}\n")
    done = snakemake(tmp_path, "-n", configfiles=(one, two))
    assert job_counts(done.stdout) == sandbox_jobs(1)
    two.write_text(two.read_text() + "  other: {kind: random}\n  mine: {kind: random}\n")
    done = snakemake(tmp_path, "--cores", "1", configfiles=(one, two))
    assert done.returncode != 0
    assert f"methods.mine: given 2 times in {two}, lines 2 and 4; keep one" in done.stdout
    assert "1 problem(s) in the configuration" in done.stdout and "Traceback" not in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_missing_file_stops_before_any_job(tmp_path):
    datasets = {"mine": {"source": "nowhere.jsonl", "fields": {"instruction": "q"}}}
    config = write_config(tmp_path / "wrong.yaml", datasets=datasets)
    done = snakemake(tmp_path, "--cores", "1", configfiles=(config,))
    assert done.returncode != 0
    assert "datasets.mine.source: 'nowhere.jsonl' does not exist" in done.stdout
    assert not (tmp_path / "results").exists()


def test_results_of_an_earlier_layout_are_told_of_and_left_alone(tmp_path):
    old = tmp_path / "results/sandbox"
    for place in ("benchmarks-of-rules/train_pilot/sandbox.tsv", "models/sandbox/model.safetensors",
                  "tables/table1.csv"):  # fmt: skip
        (old / place).parent.mkdir(parents=True, exist_ok=True)
        (old / place).write_text("old")
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    done = snakemake(tmp_path, "--cores", "1")
    assert done.returncode != 0
    assert done.stdout.count("earlier layout") == 1 and "Traceback" not in done.stdout
    assert "move the folder away, or choose another `run`" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    assert all(path.is_dir() or path.read_text() == "old" for path in before)

    config = write_config(tmp_path / "other.yaml", run="other")
    assert job_counts(snakemake(tmp_path, "-n", configfiles=(config,)).stdout) == sandbox_jobs(1)
