"""Loading and making base models, adding a drift to their weights."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sqsd.drift import Adapter
from sqsd.errors import ShapeMismatch

WORD_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} "
    "{% else %}<assistant> {{ m.content }} <end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32):
    """The causal language model in a local folder, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def load_tokenizer(folder: str | Path):
    return AutoTokenizer.from_pretrained(folder)


def make_word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A word-a-token tokenizer over the words of `texts`, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "<unk>", "<user>", "<assistant>", "<end>"]
    words = special + sorted({word for text in texts for word in text.split()})
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    fast.chat_template = WORD_TEMPLATE
    return fast


def make_model(tokenizer, architecture: dict, seed: int) -> LlamaForCausalLM:
    """A Llama with seeded random weights for `tokenizer`; `architecture`: LlamaConfig's fields."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **architecture,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def add_drift(model, adapter: Adapter, sign: float = 1.0) -> None:
    """Add `sign * scale * B A` to the model's weights in place (Eqs. 5, 14).

    Raises ShapeMismatch naming the module and both shapes.
    """
    modules = dict(model.named_modules())
    for name, lora in adapter.items():
        shape = (lora.B.shape[0], lora.A.shape[1])
        weight = modules[name].weight if name in modules else None
        if weight is None or tuple(weight.shape) != shape:
            found = None if weight is None else tuple(weight.shape)
            raise ShapeMismatch(
                f"{name}: the adapter needs a weight {shape}, the model has {found}"
            )
        weight.add_((sign * lora.scale * (lora.B @ lora.A)).to(weight.dtype))
