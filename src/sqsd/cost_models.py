"""Cost models of beaver-7b-unified-cost's class: a language model's body and a linear score."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from sqsd.chat import defused
from sqsd.errors import DataError
from sqsd.files import written_whole
from sqsd.models import HUB_HINT, make_config, make_word_tokenizer, not_loaded

TEXT = "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{blank}{response}"
TEXTS_PER_BATCH = 32
# Old releases hold what the model computes by itself.
COMPUTED = "rotary_emb.inv_freq"


class CostHead(nn.Module):
    """A causal model without its head, and one number read at each text's last token.

    That is the last token that the attention mask has, not the last that is no padding: a text may
    end in a token that is the padding too.
    """

    def __init__(self, config):
        super().__init__()
        self.model = AutoModel.from_config(config)
        self.score_head = nn.Linear(
            config.hidden_size, 1, bias=bool(getattr(config, "bias", False))
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Costs [n] of token ids and mask [n, T], padded on either side."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        last = (attention_mask * (places + 1)).argmax(1)
        hidden = outputs.last_hidden_state[torch.arange(len(last), device=last.device), last]
        return self.score_head(hidden).squeeze(-1)


@dataclass
class CostModel:
    """A cost model and its tokenizer."""

    head: CostHead
    tokenizer: Any

    @torch.inference_mode()
    def costs(
        self, prompts: Sequence[str], responses: Sequence[str], end_token: bool, blank: bool
    ) -> list[float | None]:
        """Cost of each response; None where it has more tokens than the model takes.

        end_token: whether the text ends in it, as in training; blank: whether one stands before
        the response, which training has not.
        """
        longest = self.head.model.config.max_position_embeddings
        pairs = zip(prompts, responses, strict=True)
        encoded = [encode(self.tokenizer, p, r, end_token, blank) for p, r in pairs]
        found: list[float | None] = [None] * len(encoded)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        order = [i for i in order if len(encoded[i]) <= longest]
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            width = len(encoded[batch[-1]])
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(encoded[i])] = torch.tensor(encoded[i])
                mask[row, : len(encoded[i])] = 1
            device = self.head.score_head.weight.device
            costs = self.head(ids.to(device), mask.to(device)).double().tolist()
            for i, cost in zip(batch, costs, strict=True):
                found[i] = cost
        return found


def encode(tokenizer, prompt: str, response: str, end_token: bool, blank: bool) -> list[int]:
    """Token ids of a conversation of two turns; control tokens in either text are broken up."""
    prompt, response = (defused(tokenizer, text) for text in (prompt, response))
    text = TEXT.format(prompt=prompt, response=response, blank=" " if blank else "")
    return tokenizer(text).input_ids + ([tokenizer.eos_token_id] if end_token else [])


def load_cost_model(folder: str | Path, dtype: str = "float32") -> CostModel:
    """The cost model in a folder, in evaluation mode, on the GPU if there is one.

    Raises DataError naming the tensors that are missing, or that it has no place for.
    """
    head = CostHead(read_config(folder))
    tensors = read_tensors(Path(folder))
    check_tensors(head, tensors, str(folder))
    head.load_state_dict(tensors)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    head = head.to(device=device, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return CostModel(head, tokenizer)


def read_config(folder: str | Path) -> Any:
    """A model's configuration, without code of its own. Raises DataError naming the folder."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{folder}: cannot be loaded ({reason}); give a folder of save_pretrained, of a class "
            "that transformers has"
        ) from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, but what the model computes by itself."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder}: no safetensors file; a cost model is read from no other")
    try:
        tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise DataError(
            f"{folder}: weights that cannot be read ({error}); give the whole files"
        ) from error
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED)}


def check_tensors(head: CostHead, tensors: dict[str, Tensor], place: str) -> None:
    own = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    problems = [
        f"{what} {', '.join(sorted(names))}"
        for what, names in (
            ("lacks", own.keys() - found.keys()), ("has no place for", found.keys() - own.keys()),
            ("has another shape of", {n for n in own.keys() & found.keys() if own[n] != found[n]}),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise DataError(
            f"{place}: no cost model of this class: it {'; it '.join(problems)}; give one of "
            "beaver-7b-unified-cost's class (a model without a head, and score_head)"
        )


def from_sequence_classifier(folder: Path) -> None:
    """Rename in place the head of a trained classifier (`make_classifier`).

    Does nothing to a folder that is a cost model already.
    """
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if "score.weight" in tensors:
        tensors["score_head.weight"] = tensors.pop("score.weight")
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})


def make_cost_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """The sandbox's tokenizer of words with those of `TEXT`; a response may follow its colon."""
    tokenizer = make_word_tokenizer([*texts, TEXT.format(prompt="", blank=" ", response="")])
    parts = [
        pre_tokenizers.Split("ASSISTANT:", "isolated"), pre_tokenizers.WhitespaceSplit(),
    ]  # fmt: skip
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)  # pyright: ignore
    return tokenizer


def make_classifier(tokenizer, architecture: dict, seed: int):
    """A classifier of one label with seeded random weights, to be trained and become a cost model.

    architecture: as `models.make_config`.
    """
    torch.manual_seed(seed)
    config = make_config(tokenizer, architecture)
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config)


def fetch_cost_model(spec: dict, out: Path) -> None:
    """Put a cost model of a hub or a folder into `out`, checked, whole or not at all.

    spec: source and, of a hub model, revision. Raises DataError as `load_cost_model`.
    """
    source = spec["source"]
    if source.startswith("hub:"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import httpx

        try:
            folder = snapshot_download(
                source.removeprefix("hub:"), revision=spec.get("revision") or "main",
                allow_patterns=["*.json", "*.safetensors", "tokenizer*", "*.model"],
            )  # fmt: skip
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise not_loaded(source, error, HUB_HINT) from error
    else:
        folder = source
    head = CostHead(read_config(folder))
    check_tensors(head, read_tensors(Path(folder)), source)
    with written_whole(out) as temporary:
        shutil.copytree(folder, temporary)
    print(json.dumps({"source": source, "parameters": sum(p.numel() for p in head.parameters())}))
