"""Samples packed without padding: one row of tokens, samples of one length side by side."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sqsd.errors import DataError


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt and response; labels are `input_ids[prompt_tokens:]`.

    Raises DataError naming the sample without a label, or without a prompt: its first token has
    nothing to be predicted from.
    """

    sample_id: str
    input_ids: list[int]
    prompt_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_tokens < len(self.input_ids):
            raise DataError(
                f"{self.sample_id}: {self.prompt_tokens} prompt tokens of {len(self.input_ids)}; "
                "a sample needs one at least of both prompt and response"
            )

    def first(self, response_tokens: int) -> Self:
        """The sample cut after its first so many response tokens.

        In a causal model loss and gradient are then those of these tokens alone.
        """
        return replace(self, input_ids=self.input_ids[: self.prompt_tokens + response_tokens])


def pack(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `max_tokens` tokens, longest samples first.

    A batch holds at least one sample, however long. Neighbours in length share a batch, so that
    a batch has few different lengths: each costs a kernel call a layer of its own.
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
    """Consecutive samples of one length in a packed batch."""

    samples: int
    start: int
    length: int

    def of(self, tokens: Tensor) -> Tensor:
        """Its part of a tensor [T, ...] of the batch's tokens, as [samples, length, ...]."""
        part = tokens[self.start : self.start + self.samples * self.length]
        return part.reshape(self.samples, self.length, *tokens.shape[1:])


@dataclass(frozen=True)
class PackedBatch:
    """Samples one after another, by length: T tokens, S labels, n samples.

    order [n]: the place in the batch of each of the caller's samples. predicted_from [S]: the
    token whose hidden state predicts a label, one before it. sample_of_label [S], non-decreasing;
    counts [n]: labels a sample.
    """

    ids: Tensor
    positions: Tensor
    runs: tuple[Run, ...]
    labels: Tensor
    predicted_from: Tensor
    sample_of_label: Tensor
    counts: Tensor
    order: Tensor

    @classmethod
    def of(cls, samples: list[EncodedSample], device) -> Self:
        by_length = sorted(range(len(samples)), key=lambda i: (-len(samples[i].input_ids), i))
        ids: list[int] = []
        positions: list[int] = []
        predicted_from: list[int] = []
        counts: list[int] = []
        runs: list[Run] = []
        for i in by_length:
            sample, start = samples[i], len(ids)
            length = len(sample.input_ids)
            predicted_from += range(start + sample.prompt_tokens - 1, start + length - 1)
            counts.append(length - sample.prompt_tokens)
            positions += range(length)
            ids += sample.input_ids
            if runs and runs[-1].length == length:
                runs[-1] = replace(runs[-1], samples=runs[-1].samples + 1)
            else:
                runs.append(Run(1, start, length))
        flat, sources = torch.tensor(ids), torch.tensor(predicted_from)
        number = torch.tensor(counts)
        return cls(
            ids=flat.to(device),
            positions=torch.tensor(positions).to(device),
            runs=tuple(runs),
            labels=flat[sources + 1].to(device),
            predicted_from=sources.to(device),
            sample_of_label=torch.arange(len(samples)).repeat_interleave(number).to(device),
            counts=number.to(device),
            order=torch.tensor(by_length).argsort().to(device),
        )

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """`sum_t left_t right_t'` a sample, of left [T, p] and right [T, q]: [n, p, q]."""
        # Cut once: with many short runs the cutting costs as much as the products.
        sizes = [run.samples * run.length for run in self.runs]
        pieces = zip(self.runs, left.split(sizes), right.split(sizes), strict=True)
        return torch.cat(
            [
                torch.bmm(
                    a.reshape(run.samples, run.length, -1).mT,
                    b.reshape(run.samples, run.length, -1),
                )
                for run, a, b in pieces
            ]
        )

    def sum(self, tokens: Tensor) -> Tensor:
        """Sum over each sample's tokens of a tensor [T, ...]: [n, ...]."""
        return torch.cat([run.of(tokens).sum(1) for run in self.runs])

    def sum_labels(self, values: Tensor) -> Tensor:
        """Sum over each sample's labels of values [S]: [n]."""
        return values.new_zeros(len(self.counts)).index_add_(0, self.sample_of_label, values)
