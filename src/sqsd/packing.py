"""Samples packed in one row of tokens, those of about one length side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sqsd.encoded import EncodedSample

# Share of a run's tokens that may be padding. Fewer runs are fewer kernel calls per layer, for
# attention and for per-sample sums, which a small model gains by; a large one loses what padding
# costs (docs/gradient_engine.md).
MAX_PADDING = 0.01


def pack(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `max_tokens` tokens, longest samples first.

    A batch holds at least one sample, however long; padding is not counted. Neighbours in length
    share a batch, so that it has few runs.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    tokens = 0
    for i in order:
        if batches and tokens + lengths[i] <= max_tokens:
            batches[-1].append(i)
            tokens += lengths[i]
        else:
            batches.append([i])
            tokens = lengths[i]
    return batches


@dataclass(frozen=True)
class Run:
    """Consecutive samples of a packed batch that take `length` tokens each."""

    samples: int
    length: int


def by_run(runs: Sequence[Run], tokens: Tensor) -> list[Tensor]:
    """A tensor [T, ...] of a batch's tokens in parts, one per run, [samples, length, ...]."""
    # Split, not sliced: the gradient of a slice is a tensor of the whole's size.
    parts = tokens.split_with_sizes([run.samples * run.length for run in runs])
    rest = tokens.shape[1:]
    return [
        part.view(run.samples, run.length, *rest) for run, part in zip(runs, parts, strict=True)
    ]


@dataclass(frozen=True)
class PackedBatch:
    """Samples one after another, by length: T tokens, S labels, n samples.

    Samples of a run are padded on the right to its length, where a causal model's real tokens
    see nothing: the gradient of a padding token's output is 0. At most `MAX_PADDING` of a run is
    padding. order [n]: the place in the batch of each of the caller's samples. starts, lengths
    [n]: a sample's first token in the batch, and its tokens without padding. predicted_from [S]:
    the token whose hidden state predicts a label, one before it. sample_of_label [S],
    non-decreasing; counts [n]: labels per sample.
    """

    ids: Tensor
    positions: Tensor
    runs: tuple[Run, ...]
    starts: Tensor
    lengths: Tensor
    labels: Tensor
    predicted_from: Tensor
    sample_of_label: Tensor
    counts: Tensor
    order: Tensor

    @classmethod
    def of(cls, samples: list[EncodedSample], device) -> Self:
        by_length = sorted(range(len(samples)), key=lambda i: (-len(samples[i].input_ids), i))
        runs = runs_of([len(samples[i].input_ids) for i in by_length])
        padded = [run.length for run in runs for _ in range(run.samples)]
        ids: list[int] = []
        positions: list[int] = []
        starts: list[int] = []
        predicted_from: list[int] = []
        for i, width in zip(by_length, padded, strict=True):
            sample, start = samples[i], len(ids)
            length = len(sample.input_ids)
            starts.append(start)
            predicted_from += [start + place - 1 for place in sample.label_places]
            positions += range(width)
            # Any token would do for padding; every vocabulary has the first.
            ids += sample.input_ids + [0] * (width - length)
        lengths = torch.tensor([len(samples[i].input_ids) for i in by_length])
        counts = torch.tensor([samples[i].response_tokens for i in by_length])
        flat, sources = torch.tensor(ids), torch.tensor(predicted_from)
        return cls(
            ids=flat.to(device),
            positions=torch.tensor(positions).to(device),
            runs=tuple(runs),
            starts=torch.tensor(starts).to(device),
            lengths=lengths.to(device),
            labels=flat[sources + 1].to(device),
            predicted_from=sources.to(device),
            sample_of_label=torch.arange(len(samples)).repeat_interleave(counts).to(device),
            counts=counts.to(device),
            order=torch.tensor(by_length).argsort().to(device),
        )

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """`sum_t left_t right_t'` per sample, of left [T, p] and right [T, q]: [n, p, q].

        One of the two must be 0 at padding, as gradients are.
        """
        out = left.new_empty(len(self.counts), left.shape[1], right.shape[1])
        parts = out.split_with_sizes([run.samples for run in self.runs])
        pairs = zip(by_run(self.runs, left), by_run(self.runs, right), parts, strict=True)
        for a, b, part in pairs:
            torch.bmm(a.mT, b, out=part)
        return out

    def sum(self, tokens: Tensor) -> Tensor:
        """Sum over each sample's tokens of a tensor [T, ...] that is 0 at padding: [n, ...]."""
        return torch.cat([part.sum(1) for part in by_run(self.runs, tokens)])

    def sum_labels(self, values: Tensor) -> Tensor:
        """Sum over each sample's labels of values [S]: [n]."""
        return values.new_zeros(len(self.counts)).index_add_(0, self.sample_of_label, values)


def runs_of(lengths: Sequence[int]) -> list[Run]:
    """Lengths, longest first, in as few runs as `MAX_PADDING` allows when taken in turn."""
    runs: list[Run] = []
    tokens = 0
    for length in lengths:
        if runs:
            longer = Run(runs[-1].samples + 1, runs[-1].length)
            room = longer.samples * longer.length
            if room - (tokens + length) <= MAX_PADDING * room:
                runs[-1] = longer
                tokens += length
                continue
        runs.append(Run(1, length))
        tokens = length
    return runs
