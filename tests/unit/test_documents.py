"""Every table of figures in README and docs holds what a committed file holds.

A table is found by how its header begins. Its figures come from a file's records, by the columns
that name a row; a column is a format of a record, or a function of it.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from conftest import ROOT, with_own

from sqsd.config import resolve

Record = Mapping[str, Any]
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
# Tables without a figure of ours: what there is, what a change costs (counted by test_reruns.py),
# the paper's equations, its settings, licences; and a summary, which test_sentences.py holds.
WITHOUT = (
    "| target | content |", "| target | what it tells |", "| change |", "| probe |", "| paper |",
    "| what |", "| threat |", "| method | paper |", "| data set |", "| figure to reach |",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a table's figures come from.

    key: columns of the table that name its rows, and the record's by the same values.
    """

    document: str
    begins: str
    records: Callable[[], Iterable[Record]]
    key: Mapping[str, str]
    columns: Mapping[str, str | Callable[[Record], str]]


def measured(path: str, key: str | None = None) -> Callable[[], list[Record]]:
    """Records of a committed CSV or JSON file; key: where a JSON file has them, or the only one."""

    def read() -> list[Record]:
        file = ROOT / path
        if path.endswith(".json"):
            found = json.loads(file.read_text())
            found = found[key] if key else found
            return [found] if isinstance(found, dict) else found
        return [
            {name: number(text) for name, text in row.items()}
            for row in csv.DictReader(file.open())
        ]

    return read


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def interval(name: str, kind: str, digits: int = 2) -> str:
    value, low, high = (
        f"{{{n}:.{digits}f}}" for n in (name, f"{name}_{kind}_low", f"{name}_{kind}_high")
    )
    return f"{value} [{low}, {high}]"


def step(name: str) -> Callable[[Record], str]:
    """Of one of S1 to S5: Student's t in the rows of several experiments, Wilson's in others."""

    def shown(row: Record) -> str:
        kind = "t" if str(row["experiment"]).startswith("mean") else "wilson"
        return interval(name, kind).format(**row)

    return shown


def short(value: float, digits: int = 2) -> str:
    """Without the 0 before the point."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def steps(row: Record) -> str:
    return " ".join(short(row[f"s{k}"]) for k in range(1, 6))


STEPS = {f"s{k}": step(f"s{k}") for k in range(1, 6)}
EFFECT = {"delta": interval("delta", "t"), "mono": "{mono}", "trend_p": "{trend_p:.2g}"}
SEEDS = "docs/measured/sandbox-seeds"


def by_experiment(table: str) -> list[Record]:
    """One record per experiment, with the records of its methods by name."""
    found: dict[str, dict[str, Any]] = {}
    for row in measured(table)():
        record = found.setdefault(row["experiment"], {"experiment": row["experiment"]})
        record[row["method"]] = row
    return list(found.values())


def of(method: str, shown: str) -> Callable[[Record], str]:
    """A column of one method, of a record of `by_experiment`."""
    return lambda row: shown.format(**row[method])


DELTA, OVER = interval("delta", "t"), interval("over_random", "t")
DEFAULT = "docs/measured/sandbox"
STUDY = "docs/measured/sandbox-study"
ALIGNED = "docs/measured/smollm2-aligned"
PUBLISHED = [(of, by) for of in ("alpaca", "dolly") for by in ("reps", "grad")]
ENGINE = "benchmarks/measured/gradient_engine.json"


def blank_or(shown: str, name: str = "delta") -> Callable[[Record], str]:
    """Blank where a record has no value of this name."""
    return lambda row: "" if row[name] == "" else shown.format(**row)


def clustered(name: str) -> Callable[[Record], str]:
    return blank_or(interval(name, "clustered"), name)


def falls(row: Record) -> str:
    return {"True": "yes", "False": "no", "": ""}[str(row["mono"])]


def slowest_rules() -> list[Record]:
    """Five, as they are printed: a whole number without its point."""
    found = measured("benchmarks/measured/rule_times_sandbox.json")()[:5]
    return [{name: normal(value) for name, value in row.items()} for row in found]


def over(method: str) -> Callable[[Record], str]:
    """The delta over that of a method, blank for that method itself."""
    name = f"delta_minus_{method}"
    return blank_or(interval(name, "t"), name)


def monotone(row: Record) -> str:
    return f"{row['mono_share'] * row['experiments']:.0f} of {row['experiments']:.0f}"


def times(name: str) -> str:
    return f"{{{name}_over_engine:.1f}}x"


def samples_per_second(row: Record) -> str:
    return f"{row['engine_samples_per_s']:#.3g}".rstrip(".")


def percent(name: str) -> Callable[[Record], str]:
    return lambda row: f"{100 * row[name]:.0f} %"


def kept_mb(row: Record) -> str:
    return f"{row['activations_mb']:.0f}" if "activations_mb" in row else ""


def largest_difference(row: Record) -> str:
    return f"{max(v for k, v in row.items() if k.endswith('cosine_difference')):.0e}"


SOURCES = [
    Source("docs/gradient_engine.md", "| anchors | weights |",
           measured("benchmarks/measured/full_gradients.json", "results"),
           {"anchors": "anchors", "weights": "weights"},
           {"rows/s": "{rows_per_s:.2f}", "bergson, rows/s": "{bergson_rows_per_s:.2f}",
            "bergson / engine": "{bergson_over_engine:.2f}x"}),
    Source("docs/gradient_engine.md", "| pass | MB |",
           measured("benchmarks/measured/full_gradients.json", "memory"), {"pass": "pass"},
           {"MB": "{extra_mb:,.0f}", "of SQSD's": "{over_sqsd:.2f}"}),
    Source("docs/gradient_engine.md", "| model | rows | tokens | with shares",
           measured("benchmarks/measured/token_shares.json", "results"), {"model": "model"},
           {"rows": "{rows}", "tokens": "{tokens:,}",
            "with shares / without": "{with_over_without:.2f}",
            "largest difference": "{largest_difference:.0e}"}),
    Source("docs/gradient_engine.md", "| rows | alike |",
           measured("benchmarks/measured/token_shares.json", "repeats"),
           {},
           {"rows": "{rows:,}", "alike": "{alike:,}", "seconds": "{seconds:.0f}",
            "MB": "{peak_mb:.0f}"}),
    Source("docs/own_data.md", "| treatment | method | rows |",
           measured(f"{DEFAULT}/dropping.csv"), {"treatment": "treatment", "method": "method"},
           {"rows": blank_or("{rows:,.0f}", "rows"), "ASR": interval("asr", "clustered"),
            "Safety Score": interval("safety_score", "t"),
            "ASR over all rows": blank_or(interval("asr_over_all", "t"), "asr_over_all"),
            "held-out loss over all rows":
                blank_or(interval("heldout_loss_over_all", "t", 3), "heldout_loss_over_all"),
            "exact answers": interval("exact", "clustered")}),
    Source("docs/own_data.md", "| treatment | by | rows |",
           measured(f"{ALIGNED}/dropping.csv"), {"treatment": "treatment", "by": "method"},
           {"rows": blank_or("{rows:.0f}", "rows"), "ASR": interval("asr", "clustered"),
            "Safety Score": interval("safety_score", "t", 1),
            "ASR over all rows": blank_or(interval("asr_over_all", "t"), "asr_over_all"),
            "loss over all rows":
                blank_or(interval("heldout_loss_over_all", "t", 3), "heldout_loss_over_all")}),
    Source("docs/sandbox_seeds.md", "| method | sqsd-danger over it |",
           measured(f"{SEEDS}/paired.csv"), {"method": "method"},
           {"sqsd-danger over it": interval("difference", "t"),
            "above in": "{above:.0f} of {experiments:.0f}"}),
    Source("docs/sandbox_seeds.md", "| base seed | share |",
           measured(f"{SEEDS}/other_openings.csv"), {"base seed": "seed"},
           {"share": percent("share")}),
    Source("docs/sandbox_seeds.md", "| experiment | method | s1 | s2 | s3 | s4 | s5 | delta | over",
           measured(f"{SEEDS}/table1.csv"), {"experiment": "experiment", "method": "method"},
           STEPS | EFFECT | {"over_random": OVER}),
    Source("docs/sandbox_seeds.md", "| experiment | method | s1 | s2 | s3 | s4 | s5 | delta | mono",
           measured(f"{SEEDS}/table3.csv"), {"experiment": "experiment", "method": "method"},
           STEPS | EFFECT),
    Source("README.md", "| method | no_subset | s1", measured(f"{DEFAULT}/table1.csv"),
           {"method": "method"},
           {name: clustered(name) for name in ("no_subset", *STEPS)}
           | {"delta": blank_or(DELTA), "over_random": blank_or(OVER), "mono": falls,
              "trend_p": blank_or("{trend_p:.2g}", "trend_p")}),
    Source("README.md", "| rule               |", slowest_rules, {"rule": "rule"},
           {name: f"{{{name}}}" for name in ("jobs", "total_s", "longest_s", "peak_mb")}),
    Source("docs/results.md", "| experiment | S1 to S5 of sqsd-danger",
           lambda: by_experiment(f"{SEEDS}/table1.csv"), {"experiment": "experiment"},
           {"S1 to S5 of sqsd-danger": lambda row: steps(row["sqsd-danger"]),
            "mono": of("sqsd-danger", "{mono}"),
            "delta of sqsd-danger": of("sqsd-danger", DELTA), "of random": of("random", DELTA),
            "of length": of("length", DELTA),
            "sqsd-danger over random": of("sqsd-danger", OVER)}),
    Source("docs/results.md", "| method | s1 | s2 | s3 | s4 | s5 | delta | mono",
           lambda: over_experiments(measured(f"{SEEDS}/table3.csv")()), {"method": "method"},
           STEPS | EFFECT),
    Source("docs/results.md", "| experiment | sqsd-danger | random",
           lambda: by_experiment("docs/measured/sandbox-seeds-xeon/table1.csv"),
           {"experiment": "experiment"},
           {"sqsd-danger": of("sqsd-danger", DELTA), "random": of("random", DELTA),
            "length": of("length", DELTA), "sqsd-danger over random": of("sqsd-danger", OVER)}),
    Source("README.md", "| method | S1 to S5 | delta | over random | over sqsd-danger | order",
           lambda: study_records(), {"method": "method"},
           {"S1 to S5": lambda row: steps(row["mean"]), "delta": DELTA,
            "over random": lambda row: OVER.format(**row["mean"]),
            "over sqsd-danger": over("sqsd-danger"),
            "order of windows": interval("window_correlation", "t"),
            "delta, each base seed": lambda row: " ".join(map(short, row["deltas"]))}),
    Source("README.md", "| method | correlation | over sqsd-danger", lambda: group_records(),
           {"method": "method"},
           {"correlation": interval("correlation", "t"),
            "over sqsd-danger": blank_or(interval("over", "t"), "over"),
            "each base seed": lambda row: " ".join(map(short, row["each"]))}),
    Source("README.md", "| method | ASR, S1 |", lambda: aligned_records(), {"method": "method"},
           {f"ASR, S{k}": clustered(f"s{k}") for k in (1, 2, 3)}
           | {f"score, S{k}": interval(f"score_s{k}", "t", 1) for k in (1, 2, 3)}
           | {"delta of score": interval("score_delta", "t", 1),
            "over random": lambda row: "" if row["method"] == "random"
                else interval("score_over_random", "t", 1).format(**row)}),
    Source("README.md", "| method | Alpaca, reps |", lambda: published_records(),
           {"method": "method"},
           {f"{of.capitalize()}, {by}": interval(f"{of}-{by}_auc", "bootstrap")
            for of, by in PUBLISHED}),
    Source("README.md", "| method | Alpaca, grad |", lambda: published_records(),
           {"method": "method"},
           {f"{of.capitalize()}, {by}": interval(f"{of}-{by}_matched_auc", "bootstrap")
            for of, by in PUBLISHED[1:]}),
    Source("README.md", "| rows of | ASR, riskiest |", lambda: harm_records(), {"rows of": "pair"},
           {f"{shown}, {end}": interval(f"{side}_{name}", kind, digits)
            for shown, name, kind, digits in
                (("ASR", "asr", "clustered", 2), ("score", "safety_score", "t", 1))
            for end, side in (("riskiest", "top"), ("safest", "bottom"))}),
    Source("docs/results.md", "| judge | answers |", measured(f"{DEFAULT}/judges.csv"),
           {"judge": "judge"},
           {"answers": "{responses:,.0f}", "unsafe by the rule": "{unsafe:,.0f}",
            "unreadable": "{unreadable:.0f}", "agreement": interval("agreement", "clustered"),
            "kappa": "{kappa:.2f}", "says safe, is unsafe": "{false_safe:.0f}",
            "says unsafe, is safe": "{false_unsafe:.0f}"}),
    Source("docs/results.md", "| method | delta | strictly monotone",
           measured("docs/measured/paper-small/table10.csv"), {"method": "method"},
           {"delta": DELTA, "order of windows": interval("window_correlation", "t"),
            "strictly monotone": monotone,
            "over sqsd-beaver": over("sqsd-beaver")}),
    Source("README.md", "| model                    |   samples/s",
           measured(ENGINE, "results"), {"model": "model"},
           {"samples/s": samples_per_second, "engine / bare pass": "{engine_over_bare:.2f}",
            "published": times("published"), "plain hooks": times("plain_hooks"),
            "bergson": times("bergson")}),
    Source("docs/gradient_engine.md", "| model                    |   rows",
           measured(ENGINE, "results"), {"model": "model"},
           {"rows": "{rows}", "samples/s": samples_per_second,
            "tokens/s": "{engine_tokens_per_s:,.0f}",
            "engine / bare pass": "{engine_over_bare:.2f}", "published": times("published"),
            "kept": times("published_kept"), "plain hooks": times("plain_hooks"),
            "bergson": times("bergson"),
            "of a plain product": percent("engine_share_of_matmul"),
            "largest difference of a cosine": largest_difference}),
    Source("docs/gradient_engine.md", "| d    | tokens per row",
           measured(ENGINE, "by_length"), {"d": "hidden", "tokens per row": "tokens_per_row"},
           {"engine / bare pass": "{engine_over_bare:.2f}",
            "published / engine": times("published"),
            "published / bare pass": "{published_over_bare:.1f}x"}),
    Source("docs/gradient_engine.md", "| series     |", lambda: scaling_records(),
           {"series": "series", "value": "value"},
           {"engine, s": "{engine_s:.2f}", "bare pass, s": "{bare_s:.2f}",
            "engine, MB beyond the model": "{engine_mb:.0f}",
            "activations kept, MB": kept_mb}),
    Source("docs/gradient_engine.md", "| model        |     type", lambda: precision_records(),
           {"model": "model", "type": "dtype", "tokens per batch": "tokens_per_batch"},
           {"rows": "{rows}", "rank correlation": "{rank_correlation:.6f}",
            "overlap S1": percent("overlap_s1"),
            "overlap S5": percent("overlap_s5"),
            "largest difference / std of scores":
                lambda row: f"{row['largest_difference'] / row['score_std']:.0e}"}),
    Source("docs/reproducing.md", "| rule ",
           measured("benchmarks/measured/paper_cost.json", "rules"), {"rule": "rule"},
           {"jobs": "{jobs}", "gpu_hours": "{gpu_hours:.1f}",
            "longest_hours": "{longest_hours:.1f}", "storage_gb": "{storage_gb:.1f}"}),
]  # fmt: skip


def with_each(rows: list[Record], mean: Record, name: str) -> list[float]:
    """What experiments have of a method, where `mean` is its row over them."""
    return [r[name] for r in rows if r["method"] == mean["method"] and r is not mean]


def over_experiments(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["experiment"].startswith("mean")]


def aligned_records() -> list[Record]:
    """Rates of each method's windows, with its Safety Scores as `score_...`."""
    rates, scores = (measured(f"{ALIGNED}/{name}.csv")() for name in ("table1", "table7"))
    scored = {row["method"]: {f"score_{k}": v for k, v in row.items()} for row in scores}
    return [{**row, **scored[row["method"]]} for row in rates if row["s1"] != ""]


def published_records() -> list[Record]:
    """Each method's areas under the curve, of each pair of sets as `alpaca-reps_auc...`."""
    found: dict[str, dict[str, Any]] = {}
    for of, by in PUBLISHED:
        for row in measured(f"{ALIGNED}/{of}-{by}.csv")():
            record = found.setdefault(row["method"], {"method": row["method"]})
            record |= {f"{of}-{by}_{name}": value for name, value in row.items()}
    return list(found.values())


def harm_records() -> list[Record]:
    """Each pair's rates and scores of the model fine-tuned on either set, as `top_asr...`."""
    tables = [measured(f"{ALIGNED}/{name}.csv")() for name in ("published", "published-score")]
    tuned = [row for table in tables for row in table if row["method"] == "all rows"]
    return [
        {"pair": f"{of.capitalize()}, {by}"}
        | {
            f"{end}_{name}": value
            for end in ("top", "bottom")
            for row in tuned
            if row["experiment"] == f"{of}-{by}-{end}"
            for name, value in row.items()
        }
        for of, by in PUBLISHED
    ]


def group_records() -> list[Record]:
    """Those of table 11 over all base seeds, each with the correlations per seed."""
    rows = measured(f"{STUDY}/table11.csv")()
    return [
        {**mean, "each": with_each(rows, mean, "correlation")} for mean in over_experiments(rows)
    ]


def study_records() -> list[Record]:
    """Those of table 10, each with its method's mean row of table 1 and the deltas per seed."""
    rows = measured(f"{STUDY}/methods.csv")()
    means = {mean["method"]: mean for mean in over_experiments(rows)}
    return [
        {**row, "mean": (mean := means[row["method"]]), "deltas": with_each(rows, mean, "delta")}
        for row in measured(f"{STUDY}/table10.csv")()
    ]


def scaling_records() -> list[Record]:
    found: dict[tuple, dict[str, Any]] = {}
    for point in measured("benchmarks/measured/scaling.json", "points")():
        place = (point["series"], point["value"])
        record = found.setdefault(place, {"series": place[0], "value": place[1]})
        record |= {f"{point['way']}_s": point["seconds"], f"{point['way']}_mb": point["extra_mb"]}
    return list(found.values())


def precision_records() -> list[Record]:
    return [
        {"model": model, **row}
        for model in ("sandbox", "smollm2-135m")
        for row in measured(f"benchmarks/measured/precision_{model}.json", "results")()
    ]


def tables(document: str) -> list[str]:
    return TABLE.findall((ROOT / document).read_text())


def rows_of(table: str) -> list[dict[str, str]]:
    header, _, *lines = ([c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def normal(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


@pytest.mark.parametrize("source", SOURCES, ids=[f"{s.document} {s.begins}" for s in SOURCES])
def test_a_table_holds_what_was_measured(source):
    (table,) = (found for found in tables(source.document) if found.startswith(source.begins))
    records = {tuple(normal(r[name]) for name in source.key.values()): r for r in source.records()}
    rows = rows_of(table)
    assert [tuple(row[name] for name in source.key) for row in rows] == list(records)
    for row in rows:
        record = records[tuple(row[name] for name in source.key)]
        assert set(row) == {*source.key, *source.columns}
        for column, shown in source.columns.items():
            found = shown(record) if callable(shown) else shown.format(**record)
            assert row[column] == found, (row, column)


DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_table_has_its_source(document):
    known = [s.begins for s in SOURCES if s.document == document]
    for table in tables(document):
        assert table.startswith((*known, *WITHOUT)), table.splitlines()[0]


PRESETS = ("paper", "smollm2-135m", "smollm2-aligned")


def test_presets_read_columns_that_cards_name():
    """Each hub data set's columns, as docs/reproducing.md has them from its card."""
    (table,) = (t for t in tables("docs/reproducing.md") if t.startswith("| data set |"))
    cards = {row["data set"]: row["columns"].split(", ") for row in rows_of(table)}
    for preset in PRESETS:
        given = yaml.safe_load((ROOT / f"config/presets/{preset}.yaml").read_text())
        config = with_own(given)
        registries = ("datasets", "preferences", "benchmarks")
        specs = [spec for registry in registries for spec in config[registry].values()]
        for spec in specs:
            read = {*spec["fields"].values(), *spec.get("where", {}), *spec.get("where_not", {})}
            name = spec["source"].split(":")[1]
            assert read <= set(spec.get("columns", cards[name])), spec


def test_what_the_paper_s_preset_does_not_pin_is_said():
    """Every hub source has a commit but those that docs/reproducing.md names."""
    config = yaml.safe_load((ROOT / "config/presets/paper.yaml").read_text())
    specs = [
        spec
        for registry in ("models", "datasets", "preferences", "benchmarks")
        for spec in config[registry].values()
    ]
    free = {spec["source"].split(":")[1] for spec in specs if "revision" not in spec}
    assert free == {
        "PKU-Alignment/beaver-7b-unified-cost", "PKU-Alignment/PKU-SafeRLHF-10K",
        "nvidia/Aegis-AI-Content-Safety-Dataset-2.0", "declare-lab/CategoricalHarmfulQA",
        "LLM-Tuning-Safety/HEx-PHI",
    }  # fmt: skip
    assert all(re.fullmatch("[0-9a-f]{40}", spec.get("revision", "0" * 40)) for spec in specs)
    text = " ".join((ROOT / "docs/reproducing.md").read_text().split())
    assert (
        "the cost model, PKU-SafeRLHF-10K, Aegis, CategoricalHarmfulQA and HEx-PHI are not pinned"
        in text
    )


def test_the_paper_s_settings_are_those_of_its_preset():
    """docs/paper_index.md has each value beside the place where the preset, resolved, has it."""
    default, preset = (
        yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
        for name in ("config", "presets/paper")
    )
    config = resolve(default, preset)
    (table,) = (t for t in tables("docs/paper_index.md") if t.startswith("| what | value |"))
    for row in rows_of(table):
        places = re.findall("`(.+?)`", row["setting"])
        values = row["value"].split(", ")
        assert len(places) == len(values), row
        for place, value in zip(places, values, strict=True):
            assert held(config, place) == yaml.safe_load(value), place


def held(config: Any, place: str) -> Any:
    """What lies at a place; names have dots too."""
    if not place:
        return config
    (name,) = (key for key in config if place == key or place.startswith(f"{key}."))
    return held(config[name], place.removeprefix(name).removeprefix("."))
