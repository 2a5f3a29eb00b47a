"""Packed batches against the plain loops over samples that they stand for."""

import itertools
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.encoded import EncodedSample
from sqsd.packing import PackedBatch, by_run, pack
from sqsd.shards import CPU_TOKENS, GPU_TOKENS, budget, samples_table

# The large ones are near enough to one another to share a run with padding.
LENGTHS = st.lists(st.integers(2, 12) | st.integers(98, 102), min_size=1, max_size=9)


def samples_of(lengths):
    """Samples whose tokens are all different, with one prompt token more from one to the next."""
    tokens = itertools.count(1)
    return [
        EncodedSample(f"z{i}", [next(tokens) for _ in range(length)], 1 + i % (length - 1))
        for i, length in enumerate(lengths)
    ]


def places_of(batch, samples):
    """The tokens of each sample in a batch, found by what they are."""
    ids = batch.ids.tolist()
    return [[ids.index(token) for token in sample.input_ids] for sample in samples]


@given(lengths=st.lists(st.integers(1, 50), max_size=40), max_tokens=st.integers(1, 200))
def test_pack_covers_every_sample_once_within_the_budget(lengths, max_tokens):
    batches = pack(lengths, max_tokens)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= max_tokens
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


@given(LENGTHS)
def test_a_batch_holds_every_token_once_and_little_padding(lengths):
    samples = samples_of(lengths)
    batch = PackedBatch.of(samples, "cpu")
    tokens = [token for token in batch.ids.tolist() if token]
    assert sorted(tokens) == list(range(1, sum(lengths) + 1))
    for sample, places in zip(samples, places_of(batch, samples), strict=True):
        assert places == list(range(places[0], places[0] + len(sample.input_ids)))
        assert batch.positions[places].tolist() == list(range(len(places)))
    for at, sample in zip(batch.order.tolist(), samples, strict=True):
        assert batch.starts[at] == batch.ids.tolist().index(sample.input_ids[0])
        assert batch.lengths[at] == len(sample.input_ids)
    # Runs tile the batch; each is as long as its longest sample, and a hundredth of it is empty
    # at most.
    longest_first = iter(sorted(lengths, reverse=True))
    for run, ids in zip(batch.runs, by_run(batch.runs, batch.ids), strict=True):
        own = [next(longest_first) for _ in range(run.samples)]
        assert ids.shape == (run.samples, run.length) and run.length == max(own)
        assert (ids != 0).sum(1).tolist() == own
        assert sum(own) >= 0.99 * ids.numel()
    assert list(longest_first) == []


def test_near_lengths_share_a_run_and_far_ones_do_not():
    """100, 100, 99, 99: 2 of 400 tokens are padding, 0.5 %. With the 90 they would be 2.4 %."""
    batch = PackedBatch.of(samples_of([100, 99, 90, 100, 99]), "cpu")
    assert [(run.samples, run.length) for run in batch.runs] == [(4, 100), (1, 90)]


@given(LENGTHS)
def test_a_label_is_predicted_from_the_token_before_it(lengths):
    samples = samples_of(lengths)
    batch = PackedBatch.of(samples, "cpu")
    found = {}
    columns = (batch.labels, batch.predicted_from, batch.sample_of_label)
    for label, source, owner in zip(*(c.tolist() for c in columns), strict=True):
        found[label] = int(batch.ids[source]), owner
    expected = {}
    for sample, place in zip(samples, batch.order.tolist(), strict=True):
        ids, prompt = sample.input_ids, sample.prompt_tokens
        expected |= {ids[t]: (ids[t - 1], place) for t in range(prompt, len(ids))}
        assert batch.counts[place] == len(ids) - prompt
    assert found == expected


@st.composite
def samples_of_turns(draw):
    """Samples with places behind the prompt that are no labels, as (sample, labels' places)."""
    found = []
    for sample in samples_of(draw(LENGTHS)):
        behind = range(sample.prompt_tokens + 1, len(sample.input_ids))
        between = draw(st.sets(st.sampled_from(behind))) if behind else set()
        places = [i for i in (sample.prompt_tokens, *behind) if i not in between]
        found.append((replace(sample, between=frozenset(between)), places))
    return found


@given(samples_of_turns())
def test_labels_are_what_stands_behind_the_prompt_and_not_between(found):
    samples = [sample for sample, _ in found]
    batch = PackedBatch.of(samples, "cpu")
    expected = {
        sample.input_ids[i]: (sample.input_ids[i - 1], at)
        for (sample, places), at in zip(found, batch.order.tolist(), strict=True)
        for i in places
    }
    columns = (batch.labels, batch.predicted_from, batch.sample_of_label)
    assert expected == {
        label: (int(batch.ids[source]), owner)
        for label, source, owner in zip(*(c.tolist() for c in columns), strict=True)
    }
    table = samples_table(samples)
    assert table["response_tokens"].tolist() == [len(places) for _, places in found]
    assert (table["prompt_tokens"] + table["response_tokens"]).tolist() == [
        len(sample.input_ids) for sample in samples
    ]


@given(samples_of_turns(), st.integers(1, 110))
def test_a_sample_is_cut_after_tokens_or_after_labels(found, length):
    for sample, places in found:
        cut = sample.cut(length)
        assert cut.input_ids == sample.input_ids[:length]
        assert cut.label_places == [place for place in places if place < length]
        nothing = f"response cut off entirely by max_length_tokens={length}"
        assert cut.reason == (None if cut.label_places else nothing)
        assert replace(sample, reason="odd").cut(length).reason == "odd"
        first = sample.first(length)
        assert first.label_places == places[:length]
        assert first.input_ids == sample.input_ids[: places[:length][-1] + 1]


@settings(deadline=None)
@given(LENGTHS)
def test_sums_are_over_each_sample_alone(lengths):
    samples = samples_of(lengths)
    batch = PackedBatch.of(samples, "cpu")
    generator = torch.Generator().manual_seed(len(lengths))
    left, right = (
        torch.randn(len(batch.ids), width, generator=generator, dtype=torch.float64)
        for width in (2, 3)
    )
    # As gradients are. What stands at padding on the other side must not matter.
    left[batch.ids == 0] = 0.0
    labelled = torch.randn(len(batch.labels), generator=generator, dtype=torch.float64)
    outer, total, of_labels = batch.outer(left, right), batch.sum(left), batch.sum_labels(labelled)
    swapped = batch.outer(right, left)
    for places, at in zip(places_of(batch, samples), batch.order.tolist(), strict=True):
        naive = torch.stack([left[t][:, None] * right[t][None] for t in places]).sum(0)
        assert torch.allclose(outer[at], naive, rtol=1e-12)
        assert torch.allclose(swapped[at], naive.T, rtol=1e-12)
        assert torch.allclose(total[at], torch.stack([left[t] for t in places]).sum(0), rtol=1e-12)
        own = [v for v, s in zip(labelled, batch.sample_of_label, strict=True) if s == at]
        assert torch.allclose(of_labels[at], torch.stack(own).sum(), rtol=1e-12)


def test_the_budget_is_the_configuration_s_or_the_device_s():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert budget(77, cpu) == budget(77, gpu) == 77
    assert budget("auto", cpu) == CPU_TOKENS and budget("auto", gpu) == GPU_TOKENS
