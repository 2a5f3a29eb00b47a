"""A row as a model reads it: token ids, and which of them are labels."""

from dataclasses import dataclass, replace
from typing import Self

from sqsd.errors import DataError


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt and response; labels are `input_ids[prompt_tokens:]`.

    between: places behind the prompt whose tokens are no labels, as of the user's later turns.
    reason: why the sample cannot be used, None where it can. One that can has a label, and a
    prompt that its first label is predicted from; raises DataError naming one that has not.
    """

    sample_id: str
    input_ids: list[int]
    prompt_tokens: int
    reason: str | None = None
    between: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.reason is None and not 1 <= self.prompt_tokens < len(self.input_ids):
            raise DataError(
                f"{self.sample_id}: {self.prompt_tokens} prompt tokens of {len(self.input_ids)}; "
                "a sample needs one at least of both prompt and response"
            )

    @property
    def label_places(self) -> list[int]:
        """Places of the labels among the token ids."""
        places = range(self.prompt_tokens, len(self.input_ids))
        return [place for place in places if place not in self.between]

    @property
    def response_tokens(self) -> int:
        """How many labels there are."""
        return len(self.label_places)

    def first(self, response_tokens: int) -> Self:
        """The sample cut after its first so many response tokens.

        In a causal model loss and gradient are then those of these tokens alone.
        """
        kept = self.label_places[:response_tokens]
        return replace(
            self, input_ids=self.input_ids[: kept[-1] + 1 if kept else self.prompt_tokens]
        )

    def cut(self, max_length_tokens: int) -> Self:
        """The sample cut on the right; `reason` is set where that leaves nothing to learn."""
        ids = self.input_ids[:max_length_tokens]
        prompt_tokens, reason = min(self.prompt_tokens, len(ids)), self.reason
        if reason is None and len(ids) == prompt_tokens:
            reason = f"response cut off entirely by max_length_tokens={max_length_tokens}"
        return replace(self, input_ids=ids, prompt_tokens=prompt_tokens, reason=reason)
