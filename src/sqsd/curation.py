"""A data set without its riskiest rows, in the format that it came in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import yaml

from sqsd.errors import DataError
from sqsd.files import written_whole
from sqsd.originals import Original, read_original, text_of_objects
from sqsd.provenance import write_provenance
from sqsd.sandbox import make_dataset
from sqsd.sources import columns_read, is_sandbox, sample_ids_of_rows
from sqsd.trust import Check

KEPT, DROPPED, UNSCORED, LEFT_OUT = "kept", "dropped", "unscored", "left_out"
# Of the new columns of rows that are not kept.
PREFIX = "sqsd_"
CARD = """\
# {dataset} without its riskiest rows

{kept} of {rows} rows of `{source}`: the {dropped} riskiest are dropped, {share:.1%} of those with a
score, by the method `{method}` for the model `{model_name}`; {unscored} rows have no score and are
not here either. A score says how far a row's own one-step LoRA update points towards danger rather
than safety. It does not say what a row is about, and a low one is no promise.

Made with SQSD {version} (arXiv:2605.04572). Whoever made it also has `manifest.json`, with hashes
and settings, and `dropped{suffix}`, the rows that were dropped, with score, rank and reason.
"""
DOUBT = """
**These scores are not to be trusted.** Of what they rest on, this was found not to be so, and gone
past:

"""


def rows_in_share(share: float, rows: int) -> int:
    """How many of so many rows a share of them is, in whole rows."""
    return round(share * rows)


def drop_problem(drop: float, rows: int, fewest: int = 1) -> str | None:
    """What is wrong with dropping such a share of so many rows; fewest: that are to be left."""
    dropped = rows_in_share(drop, rows)
    if 0 < dropped <= rows - fewest:
        return None
    return (
        f"{drop} of {rows} rows drops {dropped} and leaves {rows - dropped}; give a share that "
        f"drops one row at least, and leaves {fewest}"
    )


def decide(
    ids: Sequence[str | None], scores: pd.DataFrame, drop: float, fewest: int = 1
) -> pd.DataFrame:
    """What becomes of each row of a source: columns sample_id, score, rank, reason, decision.

    ids: the sample_id of every row, null where the data set leaves it out. scores: a `scores`
    table. drop: the share of the rows with a score that is dropped, the riskiest, in whole rows.
    Raises DataError where that is no row or leaves less than `fewest`, and for scores of rows that
    are not there.
    """
    known = scores.set_index("sample_id")
    if lost := sorted({*known.index} - {*ids}):
        raise DataError(
            f"{len(lost)} rows with a score, as {lost[0]}, are not in the source: it has changed "
            "since; run again"
        )
    ranked = int(known["rank"].notna().sum())
    if problem := drop_problem(drop, ranked, fewest):
        raise DataError(f"of the rows with a score, {problem}")
    dropped = rows_in_share(drop, ranked)
    table = known.reindex(pd.Index(list(ids), dtype="str", name="sample_id")).reset_index()
    riskiest = table["rank"].le(dropped).fillna(False).astype(bool)
    decision = pd.Series(KEPT, table.index).mask(riskiest, DROPPED)
    decision = decision.mask(table["rank"].isna(), UNSCORED)
    decision = decision.mask(pd.Series([i is None for i in ids]), LEFT_OUT)
    why = f"among the {dropped} riskiest of {ranked} rows with a score"
    reason = table["reason"].mask(riskiest, why)
    return table[["sample_id", "score", "rank"]].assign(reason=reason, decision=decision)


def curate(
    spec: Mapping[str, Any],
    scores: pd.DataFrame,
    terms: pd.DataFrame,
    about: Mapping[str, Any],
    fewest: int,
    out: Path,
    checks: Sequence[Check] | None,
    provenance: Mapping[str, Any],
) -> dict[str, int]:
    """Write the rows that are kept, dropped and without a score into folder `out`; their counts.

    spec: of a data set. scores: a `scores` table of it. terms: those of the scores by sample_id, a
    column each; no column for a method that has none. about: source, dataset, model, method, drop
    and what else the manifest is to say. fewest: how many rows are to be left. checks: those of
    `trust.check_trust`, None where there were none; card and manifest tell of those that failed.

    `out` gets kept, dropped and unscored in the source's own format, of which `kept` has nothing
    new and the others columns of their own; `dataset`, the kept rows as a data set of the hub; and
    manifest.json. Raises DataError as `decide` and `rows_of`, and for a source that has a column of
    such a name.
    """
    original, ids = rows_of(spec)
    decisions = decide(ids, scores, about["drop"], fewest)
    taken = [name for name in original.columns if name.startswith(PREFIX)]
    if taken:
        raise DataError(f"{about['source']}: column {taken[0]} is one of SQSD's own; rename it")
    table = decisions.join(terms, on="sample_id")
    new = {KEPT: [], DROPPED: ["score", "rank", *terms, "reason"], UNSCORED: ["reason"]}
    places = {
        decision: table.index[table["decision"] == decision].tolist()
        for decision in (*new, LEFT_OUT)
    }
    counts = {"rows": len(table)} | {name: len(rows) for name, rows in places.items()}
    with written_whole(out) as folder:
        (folder / "dataset/data").mkdir(parents=True)
        for decision, columns in new.items():
            rows = table.loc[places[decision]]
            added = {f"{PREFIX}{name}": plain_values(rows[name]) for name in columns}
            original.write(folder / f"{decision}{original.suffix}", places[decision], added)
        write_card(folder / "dataset", original, places[KEPT], {**about, **counts}, provenance)
        write_doubt(folder / "dataset", checks or [])
        read = {} if is_sandbox(spec["source"]) else columns_read(spec)
        checked = None if checks is None else [asdict(check) for check in checks]
        manifest = {
            **about, "columns_read": read, "checks": checked, "counts": counts,
            "provenance": provenance,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        write_provenance(folder, provenance)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return counts


def plain_values(values: pd.Series) -> list[Any]:
    """Values as JSON has them; null where there is none."""
    return [None if pd.isna(value) else value for value in values.tolist()]


def write_card(
    folder: Path, original: Original, kept: Sequence[int], about: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:  # fmt: skip
    """The kept rows as Parquet, and a card that the hub reads."""
    name = "data/train-00000-of-00001.parquet"
    parquet.write_table(original.table(kept), folder / name)
    files = [{"split": "train", "path": name}]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    text = CARD.format(
        **about, suffix=original.suffix, version=provenance["version"], share=about["drop"],
        model_name=name_of_model(about["model"], about["model_source"]),
    )  # fmt: skip
    (folder / "README.md").write_text(f"---\n{head}---\n\n{text}")


def name_of_model(name: str, entry: Mapping[str, Any]) -> str:
    """As others may know it: of the hub, or of the user's folder or file; else the name that it
    has in the configuration. entry: of `models`."""
    source = entry["source"]
    if source.startswith("hub:"):
        revision = f", revision {entry['revision']}" if "revision" in entry else ""
        return source.removeprefix("hub:") + revision
    return Path(source).name if Path(source).exists() else name


def write_doubt(folder: Path, checks: Sequence[Check]) -> None:
    """Say on the card which checks failed, if one did."""
    failed = [f"- {check.text()}\n" for check in checks if not check.passed]
    if failed:
        with (folder / "README.md").open("a") as card:
            card.writelines([DOUBT, *failed])


def rows_of(spec: Mapping[str, Any]) -> tuple[Original, list[str | None]]:
    """A data set's source, and the sample_id of each of its rows; the sandbox's rows are JSONL.

    Raises DataError as `sources.load_dataset`.
    """
    if not is_sandbox(spec["source"]):
        return read_original(spec), sample_ids_of_rows(spec)
    frame = make_dataset(dict(spec))
    pairs = zip(frame["prompt"], frame["response"], strict=True)
    rows = [{"prompt": prompt, "response": response} for prompt, response in pairs]
    return text_of_objects(rows), frame["sample_id"].tolist()


def what_came_of(folder: str | Path) -> str:
    """A line on what `curate` has written into a folder."""
    manifest = json.loads((Path(folder) / "manifest.json").read_text())
    counts, checks = manifest["counts"], manifest["checks"]
    line = "{}: {kept:,} rows kept, {dropped:,} dropped, {unscored:,} without a score"
    told = line.format(folder, **counts)
    if not checks:
        return told
    passed = sum(check["passed"] for check in checks)
    return f"{told}; {passed} of {len(checks)} checks of trust passed"
