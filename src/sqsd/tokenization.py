"""Tokenizers, without what runs a model: importing that takes seconds."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from sqsd.chat import ANSWER, QUESTION, written
from sqsd.errors import DataError

WORD_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} "
    "{% else %}<assistant> {{ m.content }} <end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def end_of_turn(tokenizer) -> str:
    """The end token if the template puts it after a response, else the first special one there."""
    tail = written(tokenizer, QUESTION, ANSWER).rpartition(ANSWER)[2]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    after = tokenizer(tail, add_special_tokens=False).input_ids
    ends = [tokenizer.convert_ids_to_tokens(i) for i in after if i in special]
    if not ends:
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template puts {tail!r} after a response, which "
            "has no special token, so a response would never end; use another model or correct "
            "the template in a local folder"
        )
    return tokenizer.eos_token if tokenizer.eos_token in ends else ends[0]


def make_word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of one token per word, for the words of `texts`, with a chat template."""
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


def read_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a local folder, as `models.load_tokenizer`, which takes seconds longer."""
    if (Path(folder) / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
