"""Sentences of README and docs that give figures say what committed files say.

Tables: test_documents.py. Each sentence stands here with its figures left open, and what they are;
a figure in the documents that no sentence here gives, and that is no setting, is found too.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import isclose
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from scipy.stats import spearmanr
from test_documents import (
    ALIGNED,
    DEFAULT,
    DOCUMENTS,
    PUBLISHED,
    SEEDS,
    STUDY,
    Record,
    harm_records,
    measured,
    published_records,
    short,
    steps,
)
from test_documents import interval as shown_interval

from sqsd.termination import SECONDS_TO_SAVE

XEON = "docs/measured/sandbox-seeds-xeon"
SMALL = "docs/measured/paper-small"
REAL = "docs/measured/smollm2-135m"
BEFORE = "before fine-tuning"
ALL, REFUSALS, BY_RISK = "all rows", "refusals", ("drop-20", "drop-40", "weights")
SIDES = ("riskier", "safer")  # of a pair of published sets
Row = dict[str, Any]


def rows(path: str, **where: object) -> list[Row]:
    """Records of a committed CSV file that have these values."""
    found = map(dict, measured(path)())
    return [row for row in found if all(row[key] == value for key, value in where.items())]


def row(path: str, **where: object) -> Row:
    (found,) = rows(path, **where)
    return found


def mean(path: str, method: str) -> Row:
    """A method's row over the experiments of a table."""
    (found,) = (r for r in rows(path, method=method) if str(r["experiment"]).startswith("mean"))
    return found


def saved(name: str) -> Any:
    """What a benchmark has saved."""
    return json.loads((ROOT / f"benchmarks/measured/{name}.json").read_text())


def small(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def interval(record: Row, name: str, kind: str = "t", sign: int = 1, digits: int = 2) -> str:
    """`value [low, high]`; of a sign -1 what is below instead of above."""
    ends = (record[f"{name}_{kind}_{end}"] for end in ("low", "high")[::sign])
    value, low, high = (short(sign * number, digits) for number in (record[name], *ends))
    return f"{value} [{low}, {high}]"


def as_shown(record: Row, name: str, digits: int = 1) -> str:
    """`value [low, high]` by Student's t, as tables show it: with the 0 before the point."""
    return shown_interval(name, "t", digits).format(**record)


def clock(name: str) -> str:
    """The wall-clock time of a command, as minutes and seconds."""
    minutes, seconds = divmod(round(saved("wall_times")[name]["seconds"]), 60)
    return f"{minutes} min {seconds} s"


# A sentence, or a part of one, as it must stand in a document.
Said = Iterator[str]


def grid() -> Said:
    found = saved("grid")
    yield (
        f"plans a grid of {found['jobs']['total']:,} jobs (7 models x 3 data sets x 10 methods x 3 "
        f"seeds, 15,000 rows in shards of 200) in {found['seconds']:.0f} s and "
        f"{short(found['peak_gb'])} GB"
    )


def default_run() -> Said:
    ranked = f"{DEFAULT}/table5.csv"
    first, floored = rows(ranked)[0], row(ranked, step=40.0)
    assert first["rank"] == 1 and floored["rank"] == "" and floored["denominator_floored"] == "True"
    assert floored["sensitivity"] < first["sensitivity"]
    yield f"State D is the checkpoint of step {first['step']:.0f}. Step 40 has a larger ratio"
    yield f"between steps 40 and {floored['next_step']:.0f} the model hardly drifts"
    yield f"from nothing to all of it {clock('default')} on two cores"


def small_groups() -> Said:
    table = f"{STUDY}/table11.csv"

    def correlation(method: str) -> str:
        return short(mean(table, method)["correlation"])

    theta = "sqsd-danger-theta-0-safety-only"
    least = min(r["correlation"] for r in rows(table, method=theta))
    yield (
        f"SQSD foretells what a group does ({correlation('sqsd-danger')}) far better than "
        "controls, "
        f"which are near 0 (response length {correlation('length')}, random order "
        f"{correlation('random')}, refusals by phrases {correlation('refusal-opening')}), and "
        "better "
        "than the reward model."
    )
    assert mean(table, "reward-model")["over_t_high"] < 0
    against = interval(mean(table, "bi-anchor-grad"), "over")
    yield f"beat Bi-Anchor(Grad) ({correlation('bi-anchor-grad')}; the difference is {against})."
    yield f"is {interval(mean(table, 'sqsd-danger-theta-0'), 'over')} higher; its"
    yield (
        f"safety term alone {interval(mean(table, theta), 'over')} higher, {correlation(theta)} on "
        f"average and at least {short(least)} on every base seed."
    )
    states = {
        step: mean(f"{STUDY}/table11-states.csv", f"sqsd-danger-step-{step}-danger-only")
        for step in (10, 30, 60, 90, 120)
    }
    assert all(states[step]["correlation"] < 0 for step in (60, 90, 120))
    searched = mean(table, "sqsd-danger-danger-only")
    assert max(s["correlation_t_low"] for s in states.values()) < searched["correlation_t_high"]
    yield (
        f"as nothing ({correlation('sqsd-danger-danger-only')}), at five other checkpoints of the "
        f"pilot no better ({short(states[10]['correlation'])} at step 10, below 0 from step 60 "
        "on); "
        f"taken at theta_0 it is {correlation('sqsd-danger-theta-0-danger-only')}."
    )
    calibrated = rows(table, method="sqsd-danger-calibrated")
    chosen = rows(table, method=theta)
    assert [r["correlation"] for r in calibrated] == [r["correlation"] for r in chosen]
    yield "On all five base seeds it took the safety term at theta_0"


def fresh_base_seeds() -> Said:
    def whole(method: str) -> Row:
        return row(f"{STUDY}/table10.csv", method=method)

    def behind(method: str) -> str:
        return interval(whole(method), "delta_minus_sqsd-danger", sign=-1)

    name = "delta_minus_sqsd-danger"
    yield (
        f"SQSD's delta, {interval(whole('sqsd-danger'), 'delta')}, is clear of random order's "
        f"({behind('random')} higher), of response length's ({behind('length')} higher) and of "
        f"refusals' by phrases ({behind('refusal-opening')} higher). Of the baselines only "
        f"Self-Inf-N is clearly behind ({behind('self-inf-n')})."
    )
    for method in ("random", "length", "refusal-opening", "self-inf-n"):
        assert whole(method)[f"{name}_t_high"] < 0
    for method in ("bi-anchor-grad", "bi-anchor-reps", "reward-model", "larf"):
        assert whole(method)[f"{name}_t_low"] < 0 < whole(method)[f"{name}_t_high"]
    yield "the intervals of all four differences hold 0"
    table = rows(f"{STUDY}/table10.csv")
    assert {r["mono_share"] for r in table} == {0}
    assert max(table, key=lambda r: r["window_correlation"])["method"] == "bi-anchor-reps"
    means = [r for r in rows(f"{STUDY}/methods.csv") if str(r["experiment"]).startswith("mean")]
    assert [r["method"] for r in means if r["mono"] == "True"] == ["bi-anchor-reps"]
    yield "No method is strictly monotone on any of the five base seeds.** Over their mean one is"
    yield f"delta is as large ({interval(whole('sqsd-danger-theta-0'), name)} larger)"
    calibrated = "sqsd-danger-calibrated"

    def window(seed: int, place: str) -> str:
        found = row(f"{STUDY}/methods.csv", experiment=f"seed-{seed}", method=calibrated)
        return short(found[place])

    yield (
        f"its delta here is {interval(whole(calibrated), 'delta')}, {behind(calibrated)} below "
        f"SQSD's: on seed 22 its S5 breaks the model too ({window(22, 's5')}), on seed 24 its S1 "
        f"hardly does ({window(24, 's1')})."
    )


def ten_base_seeds() -> Said:
    table, ablations = f"{SEEDS}/table1.csv", f"{SEEDS}/table3.csv"
    seeds = [f"seed-{i}" for i in range(11, 21)]

    def delta(method: str, file: str = table) -> dict[str, float]:
        return {r["experiment"]: r["delta"] for r in rows(file, method=method)}

    own = delta("sqsd-danger")
    assert all(own[seed] > 0 for seed in seeds)
    yield (
        "its S1 breaks more than its S5 in every base seed, and its mean delta, "
        f"{interval(mean(table, 'sqsd-danger'), 'delta')}, stands clear of that of random order, "
        f"{interval(mean(table, 'random'), 'delta')}, and of response length, "
        f"{interval(mean(table, 'length'), 'delta')}."
    )
    for control, seed in (("random", "seed-15"), ("length", "seed-14")):
        other = delta(control)
        assert [s for s in seeds if own[s] <= other[s]] == [seed]
    yield (
        "it is above each of the two in nine of ten: in seed 15 random order does better, in "
        "seed 14"
    )
    falls = [r["experiment"] for r in rows(table, method="sqsd-danger", mono="yes")]
    assert len([name for name in falls if name in seeds]) == 4 and "mean of experiments" in falls
    assert len({short(mean(table, "sqsd-danger")[w]) for w in ("s4", "s5")}) == 1
    yield "in four of the ten seeds, and in the mean, where S4 and S5 are level to two decimals"
    paired = {r["method"]: r for r in rows(f"{SEEDS}/paired.csv")}
    for method, kept in paired.items():
        other = delta(method, table if method in ("length", "random") else ablations)
        differences = [own[seed] - other[seed] for seed in seeds]
        # Both are rounded to two digits.
        assert isclose(np.mean(differences), kept["difference"], abs_tol=0.0151), method
        assert abs(sum(d > 0 for d in differences) - kept["above"]) <= sum(
            abs(d) < 0.011 for d in differences
        ), method

    def behind(name: str, sign: int = 1) -> str:
        return interval(paired[f"sqsd-danger-{name}"], "difference", sign=sign)

    assert paired["sqsd-danger-unnormalised"]["above"] == 10
    assert paired["sqsd-danger-danger-only"]["above"] == 9
    yield (
        f"without normalisation delta is {behind('unnormalised')} lower (paired by base seed, "
        "lower "
        f"in all ten), with the danger term alone {behind('danger-only')} lower (in nine)."
    )
    yield (
        f"with the safety term alone delta is as large ({behind('safety-only', -1)} larger), and "
        "at "
        f"the *insensitive* states too ({behind('insensitive-state')} smaller)."
    )
    shares = [r["share"] for r in rows(f"{SEEDS}/other_openings.csv")]
    yield f"by seed, {100 * min(shares):.0f} to {100 * max(shares):.0f} % of these rows"


def another_processor() -> Said:
    means = {r["method"]: r for r in rows(f"{XEON}/means.csv")}

    def delta(name: str) -> str:
        return short(means[f"sqsd-danger-{name}"]["delta"])

    assert means["sqsd-danger"]["monotone_experiments"] == 0
    yield (
        f"There the steps of `sqsd-danger` are on average {steps(means['sqsd-danger'])}, none of "
        f"the five seeds is strictly monotone, and the ablations' deltas are "
        f"{delta('unnormalised')} (unnormalised), {delta('danger-only')} (danger only), "
        f"{delta('safety-only')} (safety only), {delta('insensitive-state')} (insensitive states)."
    )
    moved = [
        seed
        for seed in (f"seed-{i}" for i in range(11, 16))
        if abs(
            row(f"{XEON}/table1.csv", experiment=seed, method="sqsd-danger")["delta"]
            - row(f"{SEEDS}/table1.csv", experiment=seed, method="sqsd-danger")["delta"]
        ) >= 0.5
    ]  # fmt: skip
    assert len(moved) == 2
    yield "rounding alone moves delta by half in two of the five seeds"


def paper_in_small() -> Said:
    minutes = saved("wall_times")["paper-small"]["seconds"] / 60
    yield f"Every table and figure of the paper, and tables 10 and 11: {minutes:.0f} minutes"
    table = {r["method"]: r for r in rows(f"{SMALL}/table10.csv")}
    assert {r["experiments"] for r in table.values()} == {6}
    others = {name: r for name, r in table.items() if name != "sqsd-beaver"}
    over = {n: [r[f"delta_minus_sqsd-beaver_t_{end}"] for end in ("low", "high")]
            for n, r in others.items()}  # fmt: skip
    assert {n for n, (_, high) in over.items() if high < 0} == {"random", "length", "larf"}
    assert all(low < 0 for low, _ in over.values())
    assert table["reward-model"]["delta"] > table["sqsd-beaver"]["delta"]
    yield "`sqsd-beaver` is ahead of random order, response length and LARF here"
    assert all(table[f"sqsd-{danger}"]["mono_share"] == 0 for danger in ("beaver", "aegis"))
    yield "windows that are strictly monotone in any of the six experiments"
    ordered, drawn = (
        steps(mean(f"{SMALL}/table1.csv", method)) for method in ("sqsd-beaver", "random")
    )
    yield f"an ASR of {ordered}, in random order {drawn} (`table1`)"
    targets = ("on-llama-3.1-8b", "on-qwen3-14b")

    def rate(finetune: str, method: str, window: str) -> str:
        found = row(f"{SMALL}/table2.csv", finetune=finetune, method=method)
        return short(found[window])

    first, second, last = (
        " and ".join(rate(t, "sqsd-beaver", window) for t in targets)
        for window in ("s1", "s2", "s5")
    )
    full, chance = (
        " to ".join(rate("full", method, window) for window in ("s1", "s5"))
        for method in ("sqsd-beaver", "random")
    )
    yield f"(`table2`: S1 {first}, S2 {second}, S5 {last})"
    yield f"({full}; random order {chance})"
    groups = {r["method"]: short(r["correlation"]) for r in rows(f"{SMALL}/table11.csv")}
    yield (
        f"the correlation is {groups['sqsd-beaver']} for `sqsd-beaver`, {groups['bi-anchor-reps']} "
        f"for Bi-Anchor(Reps) and {groups['reward-model']} for the reward model"
    )


def how_fast_in_short() -> Said:
    found = saved("gradient_engine")
    by_length = {(r["hidden"], r["tokens_per_row"]): r["published_over_engine"]
                 for r in found["by_length"]}  # fmt: skip
    yield (
        "4x is reached for rows of up to some 60 tokens "
        f"({by_length[1024, 64]:.1f}x at 64), 10x at 32 tokens ({by_length[128, 32]:.1f}x) and "
        "nowhere "
        "else"
    )
    others = {place: r for place, r in by_length.items() if place[1] > 64 or place == (128, 64)}
    assert all(r < (4 if hidden == 1024 else 10) for (hidden, _), r in others.items())
    yield (
        f"in bfloat16 the rank correlation is {short(bfloat16()[0]['rank_correlation'], 3)} "
        "(SmolLM2)"
    )


def bfloat16(model: str = "smollm2-135m") -> list[Row]:
    return [r for r in saved(f"precision_{model}")["results"] if r["dtype"] == "bfloat16"]


def how_fast() -> Said:
    found, low = saved("gradient_engine"), bfloat16()
    by_length = {(r["hidden"], r["tokens_per_row"]): r for r in found["by_length"]}
    by_model = {r["model"]: r for r in found["results"]}

    def ratio(hidden: int, tokens: int) -> str:
        return f"{by_length[hidden, tokens]['published_over_engine']:.1f}x"

    narrow, sandbox = (by_model[n] for n in ("Llama, d 128, 4 layers", "sandbox, d 128, 3 layers"))
    wide = by_model["Llama, d 1024, 2 layers"]
    yield (
        f"| against the published way, d = 128: 10x | {narrow['published_over_engine']:.1f}x "
        "(Alpaca), "
        f"{sandbox['published_over_engine']:.1f}x (sandbox), {ratio(128, 32)} (32 tokens per row) |"
    )
    yield (
        f"| against the published way, d = 1,024: 4x | {wide['published_over_engine']:.1f}x "
        "(Alpaca), "
        f"{ratio(1024, 64)} (64 tokens per row), {ratio(1024, 32)} (32) |"
    )
    yield f"| against bergson, d = 1,024: 1.3x | {wide['bergson_over_engine']:.1f}x | reached |"
    bare = {name: r["engine_over_bare"] for name, r in by_model.items()}
    wider = [v for name, v in bare.items() if re.search(r"d (512|1024|2048)", name)]
    yield (
        f"| pass at most 1.15x the bare pass | {min(wider):.2f} to {max(wider):.2f} from d = 512 "
        "on; "
        f"{bare['Llama, d 128, 4 layers']:.2f} and {bare['sandbox, d 128, 3 layers']:.2f} at d = "
        "128; "
        f"{bare['SmolLM2-135M']:.2f} SmolLM2"
    )
    padding = max(r["padding_share"] for r in found["results"])
    yield f"| padding at most 5 % on Alpaca lengths | at most {100 * padding:.1f} % | reached |"
    scaling = saved("scaling")
    yield (
        "| memory beyond model and activations at 16 directions: under 5 % | "
        f"{100 * scaling['memory_beyond_at_16']:.1f} % | reached |"
    )
    long = by_length[128, 256]["published_over_bare"]
    assert 2.5 < long < 3.5  # three times
    yield (
        "At d = 128 a row of 32 tokens takes the published way "
        f"{by_length[128, 32]['published_over_bare']:.1f} times as long as a bare pass takes for it"
    )
    of_product = [
        100 * r["engine_share_of_matmul"] * r["engine_over_bare"] for r in (narrow, sandbox)
    ]
    yield (
        f"at d = 128 runs at {min(of_product):.0f} to {max(of_product):.0f} % of what a plain "
        "product"
    )
    yield f"the engine, readings and all, runs at {100 * wide['engine_share_of_matmul']:.0f} %."
    slopes = {name: f"{value:.2f}" for name, value in scaling["slopes"].items()}
    yield (
        f"rows {slopes['rows']}, length {slopes['length']}, layers {slopes['layers']}, directions "
        f"{slopes['directions']}."
    )
    peaks = [
        p["extra_mb"] for p in scaling["points"] if (p["series"], p["way"]) == ("rows", "engine")
    ]
    yield f"64 times as many rows take {max(peaks) - min(peaks):.0f} MB more"
    exact = next(
        r for r in saved("precision_smollm2-135m")["results"]
        if (r["dtype"], r["tokens_per_batch"]) == ("float64", 1)
    )  # fmt: skip
    yield f"two batch sizes agree to {small(exact['largest_difference'] / exact['score_std'])}"
    moved = max(r["largest_difference"] / r["score_std"] for r in low)
    assert {r["overlap_s5"] for r in bfloat16("sandbox")} == {0.95} and low[0]["overlap_s5"] == 1
    yield (
        "one in twenty of the sandbox's lowest tenth, none of SmolLM2's (a tenth of 40 rows is "
        "4), by "
        f"{short(moved)} of a standard deviation at most"
    )


def full_gradients() -> Said:
    found = saved("full_gradients")
    ratios = [r["bergson_over_engine"] for r in found["results"]]
    assert min(ratios) >= 1.3
    yield f"({min(ratios):.2f} to {max(ratios):.2f} times its rate; 1.3 asked for)"
    apart = max(r["largest_difference"] for r in found["results"] if r["weights"] != "all")
    yield f"differ by at most {small(apart)} of norm times anchor"
    norms, anchors = (r["rows_per_s"] for r in found["results"] if r["weights"] == "all")
    yield f"the norm pass takes {short(anchors / norms)} of the time of the one with anchors"
    assert all(abs(r["over_sqsd"] - 1) <= 0.1 for r in found["memory"])
    yield f"in memory besides ({found['memory'][0]['model_mb']:.0f} MB)"


def cost_of_the_paper() -> Said:
    found = saved("paper_cost")
    total = next(r["jobs"] for r in found["rules"] if r["rule"] == "all")
    yield f"# {total:,} jobs, planned in {saved('wall_times')['paper-plan']['seconds']:.0f} s"
    shares = [found["assumed"][f"share of peak, {what}"]
              for what in ("training and gradients", "forward passes")]  # fmt: skip
    yield f"({short(shares[0])} for training and gradients, {short(shares[1])} for forward passes)"


def real_rows() -> Said:
    scores = rows(f"{REAL}/scores.csv")
    assert {r["reason"] for r in scores} == {""} and len({r["sample_id"] for r in scores}) == 320
    peak = max(r["peak_mb"] for r in saved("rule_times_smollm2-135m"))
    yield (
        f"{len(scores)} rows scored in 210 modules at two pinned states, none without a score, at "
        f"most {peak / 1024:.1f} GB in a job"
    )

    def steered(direction: str, alpha: float) -> Row:
        return row(f"{REAL}/figure5.csv", direction=direction, alpha=alpha)

    def score(found: Row, digits: int) -> str:
        return as_shown(found, "safety_score", digits)

    base, half, full = (steered("refusal", alpha) for alpha in (0, 0.5, 1))
    yield f"on {base['prompts']:.0f} held-out goals"
    yield (
        f"from {score(base, 1)} at \N{GREEK SMALL LETTER ALPHA} = 0 to {score(half, 1)} at 0.5 and "
        f"{score(full, 1)} at 1.0, and the share of answers without a refusal phrase from "
        f"{short(base['asr'])} to {short(half['asr'])} and {short(full['asr'])}; the compliance "
        f"direction moves the score to "
        f"{steered('compliance', 0.5)['safety_score']:.1f} and "
        f"{steered('compliance', 1)['safety_score']:.1f}."
    )
    yield f"refuses little to begin with ({100 * (1 - base['asr']):.0f} % of those goals"
    pilot = rows(f"{REAL}/figure2.csv")
    first, last = pilot[0], pilot[-1]
    assert first["projection.compliance"] == first["projection.refusal"] == 0
    yield (
        f"A pilot of {last['step']:.0f} steps on benign Alpaca rows drifts along the danger "
        f"direction (projection 0 to {last['projection.compliance']:.3f}) and against the safety "
        f"direction (0 to {last['projection.refusal']:.3f}), and the Safety Score falls from "
        f"{score(first, 2)} to {score(last, 2)}"
    )
    values, lengths = (np.array([r[key] for r in scores]) for key in ("score", "response_tokens"))
    found: Any = spearmanr(values, lengths)
    yield (
        f"Scores run from {values.min():.1f} to {values.max():.1f} (median "
        f"{np.median(values):.1f}) and hardly follow response length (rank correlation "
        f"{short(found.statistic)};"
    )


def aligned_model() -> Said:
    rates, scores = (
        {r["method"]: r for r in rows(f"{ALIGNED}/{name}.csv")} for name in ("table1", "table7")
    )
    before, own = BEFORE, "sqsd-compliance"
    goals = rates[before]["prompts"]
    times = saved("rule_times_smollm2-aligned")
    jobs, seconds = (sum(r[key] for r in times) for key in ("jobs", "total_s"))
    peak = max(r["peak_mb"] for r in times) / 1024
    minutes = saved("wall_times")["smollm2-aligned"]["seconds"] / 60
    yield f"All of it took {minutes:.0f} minutes on two cores of an Intel Xeon"
    yield f"the {jobs} jobs that load a model are {seconds / 3600:.1f} hours of work for one core"
    yield f"none needs more than {peak:.1f} GB"
    found, rate = scores[before], rates[before]
    yield (
        f"{as_shown(found, 'no_subset')} before fine-tuning, where ASR is "
        f"{interval(rate, 'no_subset', 'clustered')}."
    )
    yield f"is the share of {goals:.0f} test goals whose answer has no refusal phrase"
    windows = ("s1", "s2", "s3")
    gains = {m: r["over_random"] for m, r in scores.items() if m not in (before, "random")}
    assert max(gains, key=gains.__getitem__) == own
    assert {m for m, r in scores.items() if r["mono"] == "True"} == {
        own, "bi-anchor-grad", "self-inf-n",
    }  # fmt: skip
    assert all(0.6 < gains[m] / gains[own] < 0.72 for m in ("bi-anchor-grad", "self-inf-n"))
    assert scores[own]["s3_t_low"] > found["no_subset_t_high"]
    yield (
        f"from {scores[own]['s1']:.1f} on the riskiest rows to {scores[own]['s3']:.1f} on the "
        f"safest, which leave the model *safer* than it was. That is "
        f"{as_shown(scores[own], 'over_random')} over random order."
    )
    tried = {m: r for m, r in rates.items() if m != before}
    assert [m for m, r in tried.items() if r["mono"] == "True"] == [own]
    assert all(r["delta_t_low"] < 0 < r["delta_t_high"] for r in tried.values())

    def each(method: str, last: str = " and ") -> str:
        *first, end = (short(tried[method][w]) for w in windows)
        return ", ".join(first) + last + end

    ahead = [m for m, r in tried.items() if r["delta"] > tried[own]["delta"]]
    assert sorted(ahead) == ["bi-anchor-reps", "length"]
    yield (
        f"It alone is strictly monotone ({each(own, ', ')}), but its delta of "
        f"{short(tried[own]['delta'])} is below those of response length "
        f"({short(tried['length']['delta'])}) and of Bi-Anchor(Reps) "
        f"({short(tried['bi-anchor-reps']['delta'])}),"
    )
    by_chance = [scores["random"][w] for w in windows]
    apart = short(max(by_chance) - min(by_chance), 1)
    yield f"give {each('random')}, at Safety Scores that differ by {apart}."
    drawn = rows(f"{ALIGNED}/windows.csv")
    longest = [r for r in drawn if (r["method"], r["window"]) == ("length", "s1")]
    assert len(longest) == 40 and all(r["response_tokens"] > 128 for r in longest)
    yield f"the model answers {short(tried['length']['s1'])} of the goals"
    assert abs(scores["length"]["s1"] - scores["random"]["s1"]) < 0.5

    def refusals(method: str) -> list[int]:
        return [
            sum(r["opens_as_refusal"] for r in drawn if (r["method"], r["window"]) == (method, w))
            for w in windows
        ]

    first, _, last = refusals(own)
    assert first == 0 and refusals("refusal-opening") == [0, 0, 9]
    yield (
        f"There are 9 among the 300 rows; SQSD has none in S1 and {last:.0f} in S3. The control "
        f"that puts all 9 into its S3 has a delta of "
        f"{as_shown(scores['refusal-opening'], 'delta')}."
    )


def published_sets() -> Said:
    by = {record["method"]: record for record in published_records()}
    sets = [f"{of}-{found_by}" for of, found_by in PUBLISHED]

    def auc(method: str, found_by: str) -> list[str]:
        return [short(by[method][f"{of}-{found_by}_auc"]) for of in ("alpaca", "dolly")]

    # However it is read: an area far below a half separates as well as one far above.
    best = [max(by, key=lambda method: abs(by[method][f"{pair}_auc"] - 0.5)) for pair in sets]
    assert best.count("length") == 3
    yield "Response length alone separates three of these four pairs better than any method"
    yield f"are the long ones ({' and '.join(auc('length', 'grad'))})"
    yield f"those found by representations the short ones ({' and '.join(auc('length', 'reps'))})"
    yield f"in their published order ({' and '.join(auc('sqsd-compliance', 'reps'))})"
    alpaca, dolly = auc("sqsd-compliance", "grad")
    yield f"it does so on Alpaca ({alpaca}) and not on Dolly ({dolly})"
    *others, most = sorted(
        by["length"][f"{pair}_{side}_unscored"] for pair in sets for side in SIDES
    )
    assert most == by["length"]["dolly-reps_safer_unscored"]
    yield (
        f"{most:.0f} of the 100 safest of Dolly by representations, at most {max(others):.0f} of "
        "any other set"
    )
    yield from matched_sets(by)


def matched_sets(by: Mapping[str, Record]) -> Said:
    """Of the rows of one length, by method."""
    compared = [f"{of}-{by}" for of, by in PUBLISHED[1:]]
    assert by["length"]["alpaca-reps_riskier_matched"] == 0
    auc = {
        pair: {m: record[f"{pair}_matched_auc"] for m, record in by.items()} for pair in compared
    }
    first = {pair: sorted(found, key=found.__getitem__)[::-1] for pair, found in auc.items()}
    best = [pair for pair in compared if first[pair][0] == "sqsd-compliance"]
    of_ours = [by["sqsd-compliance"][f"{pair}_matched_auc_bootstrap_low"] for pair in compared]
    assert [pair for pair, low in zip(compared, of_ours, strict=True) if low > 0.5] == best
    assert len(best) == 2 and first["dolly-grad"][:2] == ["larf", "self-inf-n"]
    shown = [short(auc[pair]["sqsd-compliance"]) for pair in (*best, "dolly-grad")]
    yield f"on two of the three pairs ({shown[0]} and {shown[1]}) and its interval"
    yield f"on Dolly by gradients it holds a half ({shown[2]})"
    rows = [by["length"][f"{pair}_{side}_matched"] for pair in compared for side in SIDES]
    yield f"These are {min(rows):.0f} to {max(rows):.0f} rows a side"


def harm_of_published_sets() -> Said:
    harm = {record["pair"]: record for record in harm_records()}
    before = row(f"{ALIGNED}/published.csv", experiment="dolly-grad-top", method=BEFORE)
    score = row(f"{ALIGNED}/published-score.csv", experiment="dolly-grad-top", method=BEFORE)
    yield (
        f"(before it, ASR is {short(before['asr'])} and the Safety Score "
        f"{score['safety_score']:.1f})"
    )
    for record in harm.values():
        assert record["top_safety_score_t_high"] < record["bottom_safety_score_t_low"]
    reversed_, *others = sorted(harm.values(), key=lambda r: r["top_asr"] - r["bottom_asr"])
    assert all(r["top_asr_clustered_low"] > r["bottom_asr_clustered_high"] for r in others)
    assert reversed_["pair"] == "Alpaca, reps"
    yield f"({short(reversed_['bottom_asr'])} against {short(reversed_['top_asr'])})"
    yield f"hardly below the one before ({reversed_['bottom_safety_score']:.1f})"
    near = [f"{harm['Dolly, grad'][f'{end}_safety_score']:.1f}" for end in ("top", "bottom")]
    yield f"harm by that score ({' and '.join(near)})"


def models_before_and_after() -> Said:
    found = {(r["model"], r["benchmark"]): r for r in rows(f"{ALIGNED}/aligned.csv")}
    after, before = (short(found[m, "test"]["asr"]) for m in ("smollm2-aligned", "smollm2-135m"))
    refused = 100 * (1 - found["smollm2-aligned", "over-refusal"]["asr"])
    yield (
        f"The model that was tuned answers {after} of the test goals, {before} before (`aligned`), "
        f"and refuses a fifth of the harmless prompts too ({refused:.0f} of 100)"
    )

    def steered(direction: str, alpha: float) -> str:
        kept = row(f"{ALIGNED}/figure5.csv", direction=direction, alpha=alpha)
        assert kept["prompts"] == 60
        return f"{kept['safety_score']:.1f}"

    pilot = rows(f"{ALIGNED}/figure2.csv")
    yield (
        f"the Safety Score of {steered('refusal', 0)} goes to {steered('compliance', 0.5)} along "
        f"compliance and {steered('refusal', 0.5)} along refusal at \N{GREEK SMALL LETTER ALPHA} = "
        f"0.5 (`figure5`); along the pilot the drift turns to compliance "
        f"({short(pilot[-1]['projection.compliance'], 3)}) and away from refusal "
        f"({short(pilot[-1]['projection.refusal'], 3)}), and it falls to "
        f"{pilot[-1]['safety_score']:.1f} (`figure2`)."
    )


def planned_before() -> Said:
    rules = {r["rule"]: r for r in saved("plan_accuracy_smollm2-135m")["rules"]}
    del rules["fetch_model"]
    planned, took = (sum(r[key] for r in rules.values()) for key in ("planned_s", "measured_s"))
    off = max(max(r["time_ratio"], 1 / r["time_ratio"]) for r in rules.values())
    least, most = (100 * end(r["memory_ratio"] for r in rules.values()) for end in (min, max))
    yield (
        f"the passes and trainings of SmolLM2-135M were planned at {planned:,.0f} s and took "
        f"{took:,.0f} s, none further off than a factor of {off:.1f}, with {least:.0f} to "
        f"{most:.0f} % of the memory that they used"
    )


def study_planned() -> Said:
    rules = {r["rule"]: r for r in saved("plan_accuracy_smollm2-aligned")["rules"]}
    planned, took = (
        sum(r[key] for r in rules.values()) / 3600 for key in ("planned_s", "measured_s")
    )
    yield f"was planned at {planned:.1f} hours of one core and took {took:.1f}"
    fetching = rules.pop("fetch_model")["measured_mb"]
    yield f"`fetch_model`, which takes some {round(fetching, -2):.0f} MB, is left out of these"
    least, most = (end(r["time_ratio"] for r in rules.values()) for end in (min, max))
    yield f"By rule a plan said {short(least)} to {short(most, 1)} times what it took"
    assert {name for name, r in rules.items() if r["time_ratio"] > 2} == {
        "judge_responses", "collect_hidden_states", "search_layers", "generate_responses",
    }  # fmt: skip
    least, most = (end(r["memory_ratio"] for r in rules.values()) for end in (min, max))
    largest = max(rules.values(), key=lambda r: r["measured_mb"])
    assert min(rules, key=lambda name: rules[name]["memory_ratio"]) == "make_anchor"
    yield f"The {short(least)} is that of anchors"
    yield (
        f"of the memory {short(least)} to {short(most)} times, of the largest job "
        f"{short(largest['memory_ratio'])}"
    )


def curated_rows() -> Said:
    rules = {r["rule"]: r for r in saved("plan_accuracy_curate-smollm2")["rules"]}
    passes = rules["collect_gradients"]
    checks = [rules["generate_responses"], rules["judge_responses"]]
    minutes = {
        key: [sum(r[key] for r in checks) / 60, passes[key] / 60]
        for key in ("planned_s", "measured_s")
    }
    checking, passing = minutes["measured_s"]
    most = max(r["measured_mb"] for r in (*checks, passes)) / 1000
    yield (
        f"took {checking + passing:.0f} min, with at most {most:.1f} GB: checks for "
        f"{checking:.0f} min, {passes['jobs']} passes over 80 rows each for {passing:.0f}. A plan "
        f"of it made afterwards says {sum(minutes['planned_s']):.0f} min;"
    )


def what_dropping_buys() -> Said:
    by_risk = rows(f"{DEFAULT}/dropping.csv", method="sqsd-danger")
    loss = {r["treatment"]: r["heldout_loss_over_all"] for r in by_risk}
    to_a_fifth = max(loss[name] for name in ("drop-5", "drop-10", "drop-20"))
    yield (
        f"a held-out loss that is {short(to_a_fifth)} nats per token higher or less, and "
        f"{short(loss['drop-40'])} without two fifths"
    )


def treated(treatment: str, method: str = "", table: str = "dropping") -> Row:
    return row(f"{ALIGNED}/{table}.csv", treatment=treatment, method=method)


def refusals_and_drops() -> Said:
    """Of the aligned model. Of a method, a fifth, two fifths and weights."""
    asr = {name: interval(treated(name), "asr", "clustered") for name in (BEFORE, ALL, REFUSALS)}
    yield (
        f"leave an ASR of {asr[REFUSALS]}, where all rows alone leave {asr[ALL]} and {asr[BEFORE]} "
        "were answered before"
    )
    by = {m: [treated(t, m) for t in BY_RISK] for m in ("sqsd-compliance", "length", "random")}
    fifths = {m: [interval(r, "asr", "clustered") for r in found] for m, found in by.items()}
    yield f"show in ASR**: {fifths['sqsd-compliance'][1]}, {fifths['random'][1]} without as many at"
    assert isclose(by["sqsd-compliance"][0]["asr"], treated(ALL)["asr"])
    yield f"Without a fifth ASR is that of all rows ({short(treated(ALL)['asr'])}), and response"
    yield f"({fifths['length'][0]}) and as well at two fifths ({fifths['length'][1]})"
    score = {m: [r["safety_score"] for r in found] for m, found in by.items()}
    own, *controls = score.values()
    assert all(mine > max(others) for mine, *others in zip(own, *controls, strict=True))
    fifth, two_fifths, weighted = (f"{value:.1f}" for value in own)
    length, chance = (f"{min(found):.1f} to {max(found):.1f}" for found in controls)
    yield (
        f"{fifth} and {two_fifths} without a fifth and two fifths, {weighted} by weights, where "
        f"length leaves {length} and chance {chance}, and all rows "
        f"{treated(ALL)['safety_score']:.1f}. Refusals are level with it "
        f"({treated(REFUSALS)['safety_score']:.1f})"
    )
    priced = [treated(REFUSALS), *chain.from_iterable(by.values())]
    dearest = max(priced, key=lambda r: r["heldout_loss_over_all"])
    assert dearest == by["sqsd-compliance"][1]
    highest, low_high = interval(dearest, "heldout_loss_over_all", digits=3).split(" ", 1)
    yield f"by SQSD is highest, {highest} nats per token {low_high} over all rows"


def harmless_prompts() -> Said:
    found = [(REFUSALS,), ("drop-40", "sqsd-compliance"), (ALL,), (BEFORE,)]
    answered = [
        interval(treated(*names, table="over-refusal"), "asr", "clustered") for names in found
    ]
    yield (
        f"refusals answer {answered[0]}, without two fifths by SQSD {answered[1]}, after all rows "
        f"{answered[2]}; before them it was {answered[3]}"
    )


def what_to_do() -> Said:
    refused, everything = (short(treated(name)["asr"]) for name in (REFUSALS, ALL))
    yield f"with an ASR of {refused} where all rows alone leave {everything};"
    by_sqsd, by_chance, by_length = (
        short(treated("drop-40", method)["asr"])
        for method in ("sqsd-compliance", "random", "length")
    )
    yield f"({by_sqsd}; {by_chance} without as many at random)"
    yield f"did as well by ASR ({by_length})"


def on_a_cluster() -> Said:
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    yield f"the profile waits {profile['latency-wait']} s for them"
    yield f"at the end of its step and leaves, within {SECONDS_TO_SAVE} s"


SECTIONS: dict[str, list[Callable[[], Said]]] = {
    "README.md": [
        grid, default_run, fresh_base_seeds, small_groups, how_fast_in_short, real_rows,
        aligned_model, models_before_and_after, published_sets, harm_of_published_sets, what_to_do,
    ],
    "docs/own_data.md": [
        planned_before, study_planned, curated_rows, what_dropping_buys, refusals_and_drops,
        harmless_prompts,
    ],
    "docs/results.md": [
        ten_base_seeds, another_processor, paper_in_small,
    ],
    "docs/gradient_engine.md": [how_fast, full_gradients],
    "docs/reproducing.md": [cost_of_the_paper],
    "docs/cluster.md": [on_a_cluster],
}  # fmt: skip
# Settings, versions, places and arithmetic that look like figures.
SETTINGS = (
    r"arXiv:2605\.04572", r"Python 3\.11", r"torch 2\.13\.0", r"bergson 2\.5\.1", r"95 %",
    r"Llama-3\.1\S*", r"(?:Apache|CC BY\S*) ?\S*\d\.0", r"Dataset-2\.0",
    r"at most 1 % of the tokens", r"at\s+most 1\.1 times the tokens",
    # 24 / d, for d = 128, 512, 1,024, 4,096.
    r"19 % at d = 128, 5 % at 512, 2 % at 1,024, 0\.6 % at 4,096",
    r"The learning rate \(1e-3\) comes from an earlier trial, where at 1e-4",
    # What was aimed at.
    r"We aimed at 10x over the published way at d = 128 and 4x at d = 1,024",
    r"A GPU of 80 GB", r"Figure 6\*\*: .*? are ours", r"and not to 1e-15",
    r"sandbox-seeds\.yaml\] is ten experiments in 70 lines",
)  # fmt: skip
FIGURE = re.compile(
    r"(?<![\w./-])-?\d*\.\d+(?!\w|\.\d)|\de-\d+"
    r"|\b\d+(?:\.\d+)?(?:x\b| (?:%|s|min|minutes|GB|MB)(?!\w))"
)


def text_of(document: str) -> str:
    return " ".join((ROOT / document).read_text().split())


def prose_of(document: str) -> str:
    """Without code, tables, comments, the targets of links and what is unkept."""
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.DOTALL)
    text = re.sub(r"(?:^\|.*\n)+|<!--.*?-->", "", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"\]\([^)]*\)", "]", text).split())


@pytest.mark.parametrize(
    ("document", "section"), [(d, s) for d, sections in SECTIONS.items() for s in sections]
)
def test_a_sentence_says_what_was_measured(document, section):
    text = text_of(document)
    for said in section():
        assert said in text, said


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_figure_of_the_prose_is_in_a_sentence_that_is_held(document):
    text = prose_of(document)
    for section in SECTIONS.get(document, []):
        for said in section():
            text = text.replace(re.sub(r"\]\([^)]*\)", "]", said), "")
    text = re.sub(r"`[^`]*`", "", text)
    for setting in SETTINGS:
        text = re.sub(setting, "", text)
    found = [text[max(0, m.start() - 60) : m.end() + 30] for m in FIGURE.finditer(text)]
    assert not found
