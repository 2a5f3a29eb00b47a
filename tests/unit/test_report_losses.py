"""Tables and figures of response lengths and losses (paper, Eq. 13, appendix H), by hand."""

import math
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from test_report import WINDOWS, clustered, files_of, interval, made, scores_of, verdicts, wilson

import sqsd.figures
from sqsd.errors import DataError
from sqsd.figures import (
    draw_first_order,
    draw_lengths,
    draw_losses,
    draw_token_losses,
    written_token,
)
from sqsd.parts import Part
from sqsd.published import HEADING
from sqsd.report import (
    first_order_table,
    lengths_table,
    losses_table,
    token_losses_table,
)

# Unsafe of 4 by window and seed: means over seeds 7/8, 4/8, 1/8.
FALLING = {1: (4, 2, 0), 2: (3, 2, 1)}
# The first so many prompts are answered unsafely by so many seeds.
BY_PROMPT = {"s1": (2, 2, 2, 1), "s2": (2, 2, 0, 0), "s3": (1, 0, 0, 0)}


def ranked(lengths):
    """A `scores` table of rows a, b, ... in the order of their risk, with response tokens."""
    ids = [chr(ord("a") + i) for i in range(len(lengths))]
    scores = scores_of({name: -float(i) for i, name in enumerate(ids)}, ["none"])
    return scores.assign(response_tokens=[*lengths, 1000]).sample(frac=1, random_state=0)


def test_lengths_and_rates_of_every_subset(tmp_path):
    # Windows of 2 of 6 rows at 0, 2 and 4; a row without a score is in none.
    parts = [
        Part(
            {"experiment": "e", "method": name},
            {"seeds": [1, 2]},
            {
                "scores": files_of(tmp_path / name, ranked(lengths), "scores"),
                # A third seed is not asked for.
                "judgements": files_of(
                    tmp_path / name, verdicts(FALLING | {3: (0, 0, 4)}), "judgements", 2
                ),
            },
        )
        for name, lengths in (("m", (9, 7, 5, 5, 2, 1)), ("n", (1, 2, 30, 4, 5, 7)))
    ]
    cells = [{"row": "by length S5", "column": "tokens", "value": 3, "source": "H.1"}]
    table, text = made(
        tmp_path, "lengths", parts, drawn=True, windows=WINDOWS, rows=2, published=cells
    )
    assert table[["method", "window", "rows"]].values.tolist() == [
        [method, window, 2] for method in ("m", "n") for window in WINDOWS
    ]
    assert table["response_tokens"].tolist() == [8, 5, 1.5, 1.5, 17, 6]
    for i, (_, row) in enumerate(table.iterrows()):
        unsafe = list(BY_PROMPT.values())[i % 3]
        assert row["asr"] == pytest.approx(sum(unsafe) / 8)
        bounds = row["asr_wilson_low"], row["asr_wilson_high"]
        assert bounds == pytest.approx(wilson(sum(unsafe), 8), abs=1e-9)
        bounds = row["asr_clustered_low"], row["asr_clustered_high"]
        assert bounds == pytest.approx(clustered(*unsafe), abs=1e-9)
    # The paper's numbers stand below ours, under a heading of their own, and in no other file.
    ours, theirs = text.split(f"## {HEADING}\n")
    assert "| m " in ours and "by length S5" not in ours
    assert "| by length S5 | 3" in theirs and "| m " not in theirs
    assert "published" not in text.lower().replace(HEADING.lower(), "")
    assert not table.astype(str).isin(["by length S5"]).any(axis=None)


def test_a_table_without_published_numbers_has_no_heading(tmp_path):
    part = Part(
        {"experiment": "e"}, {}, {"samples": files_of(tmp_path, read([1, 2, 3]), "gradients")}
    )
    _, text = made(tmp_path, "losses", [part], drawn=True, rows=1)
    assert "Published" not in text


def test_lengths_of_rates_that_a_judge_mostly_did_not_give(tmp_path):
    frame = verdicts({1: (0, 0, 0)})
    frame.loc[frame.index[:-2], "verdict"] = None
    files = {
        "scores": files_of(tmp_path / "s", ranked((3, 2, 1)), "scores"),
        "judgements": files_of(tmp_path / "j", frame, "judgements"),
    }
    part = Part({"experiment": "e", "method": "m"}, {"seeds": [1]}, files)
    with pytest.raises(DataError, match="e m: 10 of 12 responses have no verdict"):
        made(tmp_path, "lengths", [part], drawn=True, windows=WINDOWS, rows=1)


def read(lengths, losses=None):
    """A `gradients` table of rows with so many response tokens; a loss of None has a reason."""
    losses = [1.0] * len(lengths) if losses is None else losses
    frame = pd.DataFrame({"sample_id": [f"r{i}" for i in range(len(lengths))], "loss": losses})
    frame["prompt_tokens"], frame["response_tokens"] = 4, lengths
    frame["reason"] = pd.Series(["no" if loss is None else None for loss in losses], dtype="str")
    frame["gradient_norm"] = 1.0
    return frame.astype({"loss": "float64", "sample_id": "str"})


def test_losses_by_length_group(tmp_path):
    # By length 9, 8, 7 | 5, 5, 4 | 2, 1, 1; the longest of all has no loss.
    lengths = [1, 9, 2, 4, 8, 99, 5, 7, 1, 5]
    losses = [8.0, 1.0, 2.0, 3.0, 1.0, None, 1.5, 1.3, 5.0, 1.5]
    files = files_of(tmp_path / "g", read(lengths, losses), "gradients", 3)
    part = Part({"experiment": "e"}, {}, {"samples": files})
    table, text = made(tmp_path, "losses", [part], drawn=True, rows=3)
    assert table["group"].tolist() == ["longest", "middle", "shortest"]
    assert table[["rows", "fewest", "most"]].values.tolist() == [[3, 7, 9], [3, 4, 5], [3, 1, 2]]
    # Quartiles of three values lie halfway to the middle one.
    expected = {
        "longest": (1, 1, 1, 1.15, 1.3), "middle": (1.5, 1.5, 1.5, 2.25, 3),
        "shortest": (2, 3.5, 5, 6.5, 8),
    }  # fmt: skip
    columns = ["least", "quartile_1", "median", "quartile_3", "greatest"]
    for name, values in expected.items():
        (row,) = table[table["group"] == name].to_dict("records")
        assert [row[c] for c in columns] == pytest.approx(values)
    assert interval(table.iloc[2], "mean")[0] == pytest.approx(5)
    # Of 2, 5 and 8 the deviation is 3.
    half = 4.302652730 * 3 / math.sqrt(3)
    assert interval(table.iloc[2], "mean") == pytest.approx((5, 5 - half, 5 + half))
    assert "Loss in nats" in text


TOKENS = {"r1": ([4.0, 1.0, 3.0, 6.0], True), "r2": ([2.0, 2.5], False), "r3": ([5.0, 7.0], True)}


def tokens(rows, group="shortest"):
    """A `token_losses` table of rows: id to losses, and whether the last token is the end."""
    frames = [
        pd.DataFrame({"sample_id": name, "group": group, "position": range(1, len(losses) + 1)})
        .assign(token=[f"w{i}" for i in range(len(losses))], is_end=False, loss=losses)
        .assign(is_end=lambda f, ends=ends: (f["position"] == len(f)) & ends)
        for name, (losses, ends) in rows.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_where_in_a_response_the_loss_is(tmp_path):
    both = pd.concat([tokens({"long": ([9.0, 9.0], True)}, "middle"), tokens(TOKENS)])
    files = files_of(tmp_path / "t", both.astype({"group": "str"}), "token_losses")
    part = Part({"experiment": "e"}, {}, {"losses": files})
    table, text = made(tmp_path, "token-losses", [part], drawn=True, group="shortest")
    rows = {row["sample_id"]: row for row in table.to_dict("records")}
    assert list(rows) == ["r1", "r2", "r3"]
    columns = ["response_tokens", "all", "first", "between", "end"]
    expected = {
        "r1": (4, fmean((4, 1, 3, 6)), 4, 2, 6), "r2": (2, 2.25, 2, 2.5, math.nan),
        "r3": (2, 6, 5, math.nan, 7),
    }  # fmt: skip
    for name, values in expected.items():
        assert [rows[name][c] for c in columns] == pytest.approx(values, nan_ok=True)
    assert "end token" in text


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" Paris", "Paris"), ("\n", r"\n"), ("  ", " "), ("a" * 13, "a" * 11 + "…"), ("$x$", "$x$")],
)
def test_a_token_is_one_short_word(token, shown):
    assert written_token(token) == shown


def steps(*rows, ids="abcdefgh"):
    """A `loss_changes` table; rows: alpha, predictions, changes and an adapter's predictions."""
    frames = [
        pd.DataFrame(
            {
                "sample_id": list(ids[: len(real)]), "alpha": alpha, "predicted": predicted,
                "adapter_predicted": adapter or math.nan, "change": real,
            }
        )
        for alpha, predicted, real, adapter in rows
    ]  # fmt: skip
    kinds = {"adapter_predicted": "float64", "change": "float64", "predicted": "float64"}
    return pd.concat(frames, ignore_index=True).astype(kinds)


def at(state, direction):
    return {"experiment": "e", "state": state, "direction": direction}


def test_how_well_the_first_order_foretells(tmp_path):
    tables = [
        steps(
            (0.1, [1, 2, 3, 4], [2, 4, 6, 8], None), (1.0, [1, 2, 3, 4], [3, 1, -2, None], None),
        ),
        steps((0.1, [1, -2, 3, -4], [1, -2, 3, -4], [4, 3, 2, 1])),
    ]  # fmt: skip
    parts = [
        Part(at(state, "harm"), {}, {"changes": files_of(tmp_path / state, table, "loss_changes")})
        for state, table in zip(("theta-0", "d"), tables, strict=True)
    ]
    table, text = made(tmp_path, "first-order", parts, drawn=True)
    columns = ["state", "alpha", "predictor", "rows"]
    assert table[columns].values.tolist() == [
        ["theta-0", 0.1, "weights", 4], ["theta-0", 1.0, "weights", 3],
        ["d", 0.1, "weights", 4], ["d", 0.1, "adapter", 4],
    ]  # fmt: skip
    twice, against, exact, adapter = table.to_dict("records")
    # Everything is twice as predicted, whatever the rows: 10 of 20 nats are missed.
    for name, value in (("spearman", 1), ("slope", 2), ("relative_error", 0.5)):
        assert interval(twice, name, "bootstrap") == pytest.approx((value, value, value))
    # (1 x 3 + 2 x 1 - 3 x 2) / 14; |2| + |-1| + |-5| of 3 + 1 + 2; three rows have no bounds.
    assert against["spearman"] == -1
    assert against["slope"] == pytest.approx(-1 / 14)
    assert against["relative_error"] == pytest.approx(8 / 6)
    assert math.isnan(against["slope_bootstrap_low"])
    assert (exact["spearman"], exact["slope"], exact["relative_error"]) == (1, 1, 0)
    # Changes rank 1, -2, 3, -4 as 3, 2, 4, 1, the adapter's as 4, 3, 2, 1: 1 - 6 (1+1+4) / 60.
    assert adapter["spearman"] == pytest.approx(0.4)
    assert math.isnan(adapter["slope"])
    assert "Eq. 13" in text


# --- figures


@pytest.fixture
def figures(monkeypatch):
    """Figures that were drawn, in place of their files."""
    found = []
    monkeypatch.setattr(sqsd.figures, "save_figure", lambda figure, out: found.append(figure))
    yield found
    for figure in found:
        sqsd.figures.plt.close(figure)


def test_the_figure_of_lengths_has_a_panel_per_method_with_two_axes(figures):
    parts = [Part({"experiment": "e", "method": name}, {"seeds": [1, 2]}) for name in ("by", "raw")]
    scores = [ranked((9, 7, 5, 5, 2, 1)), ranked((1, 2, 30, 4, 5, 7))]
    table = lengths_table(parts, scores, [verdicts(FALLING)] * 2, WINDOWS, 2)
    draw_lengths(table, {})
    (figure,) = figures
    left = [axes for axes in figure.axes if axes.get_title()]
    right = [axes for axes in figure.axes if not axes.get_title()]
    assert [axes.get_title() for axes in left] == ["by", "raw"]
    for axes, expected in zip(left, ([8, 5, 1.5], [1.5, 17, 6]), strict=True):
        assert [bar.get_height() for bar in axes.patches] == expected
        assert axes.get_ylabel() == "mean response length (tokens)"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["S1", "S2", "S3"]
    for axes in right:
        (container,) = axes.containers
        assert container[0].get_ydata() == pytest.approx([7 / 8, 4 / 8, 1 / 8])
        ends = [bar[:, 1] for bar in container[2][0].get_segments()]
        expected = [clustered(*unsafe) for unsafe in BY_PROMPT.values()]
        assert np.array(ends) == pytest.approx(np.array(expected), abs=1e-9)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["mean response length", "attack success rate, with its 95 % interval"]


def test_the_zeros_of_both_axes_are_level(figures):
    part = Part({"experiment": "e", "method": "m"}, {"seeds": [1, 2]})
    draw_lengths(lengths_table([part], [ranked((9, 5, 1))], [verdicts(FALLING)], WINDOWS, 1), {})
    heights = [axes.transData.transform((0, 0))[1] for axes in figures[0].axes]
    assert heights[0] == pytest.approx(heights[1])


def test_the_figure_of_losses_has_a_box_per_group(figures):
    parts = [Part({"experiment": name}) for name in ("e", "f")]
    reads = [read([3, 2, 1], [1.0, 2.0, 6.0]), read([30, 20, 10], [4.0, 2.0, 1.0])]
    draw_losses(losses_table(parts, reads, 1), {})
    (figure,) = figures
    first, second = figure.axes
    labels = [label.get_text() for label in first.get_xticklabels()]
    assert labels == ["longest\n3 to 3 tokens", "middle\n2 to 2 tokens", "shortest\n1 to 1 tokens"]
    assert (first.get_title(), second.get_title()) == ("e", "f")
    assert first.get_ylabel() == "loss (nats per token)"
    medians = [line.get_ydata()[0] for line in second.lines if len(line.get_xdata()) == 2]
    assert {4.0, 2.0, 1.0} <= set(medians)


def test_the_figure_of_token_losses_marks_the_end_token(figures):
    parts, frame = [Part({"experiment": "e"})], tokens(TOKENS)
    draw_token_losses(parts, [frame], {})
    (figure,) = figures
    for axes, (name, (losses, ends)) in zip(figure.axes, TOKENS.items(), strict=True):
        assert axes.get_title() == f"{name} ({len(losses)} tokens)"
        assert [bar.get_height() for bar in axes.patches] == losses
        colors = [bar.get_facecolor() for bar in axes.patches]
        assert (colors[-1] != colors[0]) == ends and len(set(colors[:-1])) == 1
        assert [t.get_text() for t in axes.get_xticklabels()] == [
            f"w{i}" for i in range(len(losses))
        ]
    # One scale for all, so that heights may be compared.
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["other token", "end token"]


def test_long_responses_are_not_written_out(figures):
    draw_token_losses([Part({"experiment": "e"})], [tokens({"r": ([1.0] * 17, True)})], {})
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "token of the response"
    assert not {t.get_text() for t in axes.get_xticklabels()} & {"w0", "w16"}


def test_the_token_losses_of_two_experiments_are_told_apart(figures):
    parts = [Part({"experiment": name}) for name in ("e", "f")]
    frame = tokens({"r": ([1.0, 2.0], True)})
    draw_token_losses(parts, [frame, frame], {})
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["e: r (2 tokens)", "f: r (2 tokens)"]
    assert token_losses_table(parts, [frame, frame])["experiment"].tolist() == ["e", "f"]


def test_the_figure_of_the_first_order_has_a_panel_per_step(figures):
    frames = [
        steps((0.1, [1, 2], [1, 3], None), (0.5, [5, 6], [7, 8], None)),
        steps((0.1, [-1, 0], [0, 0], None), (0.5, [9, 9], [9, None], None)),
        steps((0.1, [4, 4], [4, 4], None)),
    ]
    names = [at("theta-0", "harm"), at("theta-0", "calm"), at("d", "harm")]
    draw_first_order([Part(name) for name in names], frames, {})
    (figure,) = figures
    titles = ["e, theta-0, $\\alpha$ = 0.1", "e, theta-0, $\\alpha$ = 0.5", "e, d, $\\alpha$ = 0.1"]
    assert [axes.get_title() for axes in figure.axes] == titles
    first, second, third = figure.axes
    marks = [list(map(tuple, c.get_offsets().data)) for c in first.collections]
    assert marks == [[(1, 1), (2, 3)], [(-1, 0), (0, 0)]]
    assert [list(c.get_offsets()[0]) for c in second.collections] == [[5, 7], [9, 9]]
    assert len(third.collections) == 1
    looks = [tuple(c.get_edgecolor()[0]) for c in first.collections]
    assert looks[0] != looks[1]
    for axes in figure.axes:
        (line,) = axes.lines
        assert line.get_slope() == 1 and line.get_xy1() == (0, 0)
        assert axes.get_xlabel().endswith("(nats)") and axes.get_ylabel().endswith("(nats)")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["harm", "calm", "as predicted"]
    table = first_order_table([Part(names[2])], [frames[2]])
    assert table["rows"].tolist() == [2]
