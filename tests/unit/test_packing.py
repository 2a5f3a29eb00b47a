"""Packed batches against the plain loops over samples that they stand for."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.packing import EncodedSample, PackedBatch, pack
from sqsd.shards import CPU_TOKENS, GPU_TOKENS, budget

LENGTHS = st.lists(st.integers(2, 12), min_size=1, max_size=9)


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
def test_a_batch_holds_every_token_once_and_no_padding(lengths):
    samples = samples_of(lengths)
    batch = PackedBatch.of(samples, "cpu")
    assert sorted(batch.ids.tolist()) == list(range(1, sum(lengths) + 1))
    for sample, places in zip(samples, places_of(batch, samples), strict=True):
        assert places == list(range(places[0], places[0] + len(sample.input_ids)))
        assert batch.positions[places].tolist() == list(range(len(places)))
    # Runs tile the batch, each of one length, no two neighbours of the same.
    ends = [run.start + run.samples * run.length for run in batch.runs]
    assert [run.start for run in batch.runs] == [0, *ends[:-1]] and ends[-1] == sum(lengths)
    assert len({run.length for run in batch.runs}) == len(batch.runs) == len(set(lengths))


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


@settings(deadline=None)
@given(LENGTHS)
def test_sums_are_over_each_sample_alone(lengths):
    samples = samples_of(lengths)
    batch = PackedBatch.of(samples, "cpu")
    generator = torch.Generator().manual_seed(len(lengths))
    left, right = (
        torch.randn(sum(lengths), width, generator=generator, dtype=torch.float64)
        for width in (2, 3)
    )
    labelled = torch.randn(len(batch.labels), generator=generator, dtype=torch.float64)
    outer, total, of_labels = batch.outer(left, right), batch.sum(left), batch.sum_labels(labelled)
    for places, at in zip(places_of(batch, samples), batch.order.tolist(), strict=True):
        naive = torch.stack([left[t][:, None] * right[t][None] for t in places]).sum(0)
        assert torch.allclose(outer[at], naive, rtol=1e-12)
        assert torch.allclose(total[at], torch.stack([left[t] for t in places]).sum(0), rtol=1e-12)
        own = [v for v, s in zip(labelled, batch.sample_of_label, strict=True) if s == at]
        assert torch.allclose(of_labels[at], torch.stack(own).sum(), rtol=1e-12)


def test_the_budget_is_the_configuration_s_or_the_device_s():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert budget(77, cpu) == budget(77, gpu) == 77
    assert budget("auto", cpu) == CPU_TOKENS and budget("auto", gpu) == GPU_TOKENS
