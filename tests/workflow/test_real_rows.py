"""Real rows, where SQSD_REAL_ROWS names a folder that holds them; nothing of them is kept."""

import os
from pathlib import Path

import pytest

from sqsd.sources import load_benchmark, load_dataset, load_preferences
from sqsd.tables import write_table

FOLDER = Path(os.environ.get("SQSD_REAL_ROWS", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="set SQSD_REAL_ROWS to a folder with the public rows"
)
ALPACA = {"instruction": "instruction", "context": "input", "response": "output"}
OPENING = "Sure, here is how to do that:"


def test_every_alpaca_row_becomes_a_row_with_a_prompt(tmp_path):
    spec = {"source": str(FOLDER / "alpaca_en_999.jsonl"), "fields": ALPACA}
    rows = load_dataset(spec)
    write_table(rows, tmp_path / "alpaca.parquet", "dataset", {})
    assert len(rows) == 999 and rows["sample_id"].is_unique
    assert rows["prompt"].str.len().min() > 0


def test_parts_of_one_file_are_disjoint():
    source = {"source": str(FOLDER / "alpaca_en_999.jsonl"), "fields": ALPACA, "seed": 1}
    scored = load_dataset(source | {"rows": 400})
    pilot = load_dataset(source | {"rows": 240, "skip": 400})
    assert (len(scored), len(pilot)) == (400, 240)
    assert not set(scored["sample_id"]) & set(pilot["sample_id"])


def test_goals_become_preferences_and_prompts(tmp_path):
    source = {"source": str(FOLDER / "advbench_goals_520.csv"), "seed": 1}
    preferences = load_preferences(
        source
        | {"fields": {"instruction": "goal"}, "rows": 160, "skip": 160}
        | {"constants": {"chosen": "I'm sorry, but I can't help.", "rejected": OPENING}}
    )
    prompts = load_benchmark(source | {"fields": {"prompt": "goal"}, "rows": 100, "skip": 400})
    write_table(preferences, tmp_path / "preferences.parquet", "preferences", {})
    write_table(prompts, tmp_path / "prompts.parquet", "benchmark", {})
    assert len(preferences) == 160 and set(preferences["rejected"]) == {OPENING}
    assert len(prompts) == 100
    assert not set(preferences["prompt"]) & set(prompts["prompt"])


def test_gsm8k_maps_its_fields():
    spec = {
        "source": str(FOLDER / "gsm8k_train_2000.jsonl"),
        "fields": {"instruction": "question", "response": "answer"},
    }
    rows = load_dataset(spec)
    assert len(rows) == 2000 and rows["problem"].isna().all()
