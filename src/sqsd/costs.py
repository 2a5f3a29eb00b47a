"""What the jobs of a plan cost: operations, bytes read, memory. Nothing here is measured.

A job's work is counted from the configuration and from what is known of models and data; how long
a machine takes for it is a division (`seconds`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqsd.config import rows_at_once, training_steps
from sqsd.plan import Plan
from sqsd.treatments import row_count

# Operations per parameter and token: a forward pass has 2, one backward to activations 2 more, one
# to weights 2 more.
FORWARD, ACTIVATIONS, WEIGHTS = 2, 4, 6
BYTES = {"bfloat16": 2, "float32": 4}
# Parameters of a LoRA of rank 8 on every linear layer, and those layers, as a share and a number
# that are much the same for all models of the paper (Qwen3-8B: 21.8 million, 252 modules).
LORA_SHARE, MODULES = 0.0027, 250
# `evaluation.PROMPTS_PER_BATCH`, `shards.CPU_TOKENS` and `gradients.LOGITS_AT_ONCE`, whose modules
# take seconds to import; a test holds them to be the same.
PROMPTS_PER_BATCH, CPU_TOKENS, LOGITS_AT_ONCE = 32, 2**11, 2**25
# A GGUF file's weights are unpacked, which takes so many times what loading them would (26 s of
# SmolLM2-135M: benchmarks/measured/plan_accuracy_curate-smollm2.json).
GGUF_LOADS = 80
# Of a refusal or an opening that a judge asks a model how likely it is.
OPENING_TOKENS = 10
# Rows whose tokens `token-losses` shows, in two groups.
TOKEN_LOSS_ROWS = 18

# Resident megabytes of a job that computes on the CPU, beside its model: Python, torch,
# transformers; of one that trains also trl, peft and datasets. Measured with models of under a
# million parameters (benchmarks/measured/rule_times_sandbox.json: 505 to 520 and 570 to 600).
BASE_MB = {"infer": 500, "train": 570}
# Of a job whose model is on a GPU, what CUDA has there before anything is computed.
CUDA_MB = 600
# Numbers that a pass has of a token and layer, as multiples of the hidden and of the inner width:
# those that the engine keeps for the backward pass, those that autograd through peft keeps, which
# are what adapters multiply besides, and those of a pass without a gradient, a layer at a time.
# Fitted to the resident memory of SmolLM2-135M (benchmarks/measured/rule_times_smollm2-135m.json).
ENGINE, AUTOGRAD, NO_GRADIENT = (12, 3), (16, 8), (6, 3)
# Numbers per token and entry of the vocabulary that a training's loss keeps.
LOSS_COPIES = 3
# Copies of the logits that the engine has in memory at once.
LOGITS_COPIES = 3


@dataclass(frozen=True)
class Model:
    """What is known of a model's size.

    parameters: all of them; width, inner: of a layer's input, and between its two last products;
    kv: numbers that a layer keeps of a token for those behind it, keys alone.
    """

    parameters: float
    layers: int
    width: int
    inner: int
    kv: int
    vocabulary: int


@dataclass(frozen=True)
class Lengths:
    """Rows of data in tokens: how many, of a mean one and of the longest.

    assumed: whether nobody has seen them, and the longest is as long as it may be.
    """

    rows: int
    mean: float
    longest: int
    assumed: bool = False


class Known(Protocol):
    """What costs are counted by."""

    def model(self, name: str) -> Model:
        """Raises UnknownSizeError where nothing is known of a model's size."""
        ...

    def lengths(self, registry: str, name: str, model: str, most_tokens: int | None) -> Lengths:
        """Rows of an entry of data, cut at so many tokens, for a model's tokenizer."""
        ...

    def response_tokens(self, model: str) -> float:
        """Tokens of a mean response."""
        ...


@dataclass(frozen=True)
class Job:
    """A job of a plan. targets: what asks for it; done: whether all it makes is there.

    times: the file that its seconds are kept in, where it has one.
    """

    rule: str
    wildcards: Mapping[str, str]
    targets: tuple[str, ...] = ()
    done: bool = False
    times: str | None = None


@dataclass(frozen=True)
class Work:
    """What a job has to do.

    model: whose weights it has; kind: of its resources; gpus: how many it can use at most.
    learning, forward: operations of passes with and without a backward one. steps: new tokens of
    batches, for each of which `step_operations` are done and `step_bytes` read. updates: steps of
    an optimiser. loaded: parameters read from the disk. kept: bytes of its output that stay.
    weights, activations: bytes in memory at once beside what a program has before; GPUs can share
    weights. dtype: what is computed in. sharded: whether GPUs share the rows, not the layers.
    assumed: whether its rows are, as in `Lengths`.
    """

    model: str
    kind: str
    gpus: float = 1
    learning: float = 0.0
    forward: float = 0.0
    steps: float = 0.0
    step_operations: float = 0.0
    step_bytes: float = 0.0
    updates: float = 0.0
    loaded: float = 0.0
    kept: float = 0.0
    weights: float = 0.0
    activations: float = 0.0
    dtype: str = "float32"
    sharded: bool = False
    assumed: bool = False


@dataclass(frozen=True)
class Machine:
    """What a machine does in a second, and what takes its time besides.

    operations: of a plain matrix product; learning, forward: the share of it that passes reach;
    bandwidth: bytes read, of which generation reaches a share. load: seconds for a parameter
    that is loaded; start: seconds until a job of a kind computes; update, step: seconds that a step
    of an optimiser, and a new token of a batch, take beside their operations.
    """

    operations: float
    bandwidth: float
    learning: float
    forward: float
    reading: float
    load: float
    start: Mapping[str, float] = field(default_factory=dict)
    update: float = 0.0
    step: float = 0.0


def seconds(work: Work, machine: Machine) -> float:
    """Seconds that a machine takes for a job's work."""
    rate = machine.operations * machine.forward
    step = max(
        work.step_bytes / (machine.bandwidth * machine.reading),
        work.step_operations / rate + machine.step,
    )
    return (
        machine.start.get(work.kind, 0.0)
        + work.loaded * machine.load
        + work.updates * machine.update
        + work.learning / (machine.operations * machine.learning)
        + work.forward / rate
        + (work.steps * step if work.steps else 0.0)
    )


class Costs:
    """Work of the jobs of a plan."""

    def __init__(self, plan: Plan, known: Known):
        self.plan, self.config, self.known = plan, plan.config, known

    def work(self, job: Job) -> Work | None:
        """What a job has to do; None for one that runs no model.

        Raises UnknownSizeError for a model of which no size is known.
        """
        count = getattr(self, f"_{job.rule}", None)
        return None if count is None else count(job.wildcards)

    def resources(self, rule: str, work: Work) -> dict[str, Any]:
        """What the job's rule asks for (`rules/common.smk`): gpu, gpu_model, mem_mb, threads."""
        found = {
            name: self.plan.resource(work.kind, name, work.model) for name in ("gpu", "mem_mb")
        }
        gpu = min(found["gpu"], work.gpus)
        model = self.plan.gpu_model(work.kind, work.model) if gpu else ""
        threads = self.plan.resource(work.kind, "threads", work.model)
        return found | {"gpu": gpu, "gpu_model": model, "threads": threads}

    def lengths(self, name: str, model: str, most: int | None, registry="datasets") -> Lengths:
        return self.known.lengths(registry, name, model, most)

    def passes(self, model: str, tokens: float, each: int) -> float:
        return self.known.model(model).parameters * tokens * each

    def adapter(self, model: str) -> float:
        return self.known.model(model).parameters * LORA_SHARE * BYTES["float32"]

    def layer(self, model: str, tokens: float, numbers: tuple[int, int], dtype: str) -> float:
        """Bytes that a pass over so many tokens has of a layer; numbers: as `ENGINE`."""
        size = self.known.model(model)
        return tokens * (numbers[0] * size.width + numbers[1] * size.inner) * BYTES[dtype]

    # Trainings.

    def training(
        self, model: str, lengths: Lengths, entry: Mapping[str, Any], runs: int = 1
    ) -> Work:
        """Trainings one after another; lengths: of the rows of one of them."""
        training, size = entry["training"], self.known.model(model)
        dpo, full = entry.get("objective") == "dpo", entry.get("tuning") == "full"
        # DPO has two sequences per row, and a forward pass of theta_0 for each.
        each = 2 * (ACTIVATIONS + FORWARD) if dpo else WEIGHTS if full else ACTIVATIONS
        tokens = runs * lengths.rows * training["epochs"] * lengths.mean
        updates = training_steps(lengths.rows, training)
        kept = runs * (updates // entry["save_steps"] + 1 if "save_steps" in entry else 1)
        whole = size.parameters * BYTES["bfloat16"] if full else self.adapter(model)
        dtype = training["dtype"]
        # All weights have a gradient and AdamW's two moments.
        weights = size.parameters * BYTES[dtype] * (4 if full else 1)
        at_once = min(rows_at_once(training), lengths.rows) * (2 if dpo else 1) * lengths.longest
        logits = at_once * size.vocabulary * LOSS_COPIES * BYTES["float32"]
        return Work(
            model, "train", gpus=float("inf"), learning=self.passes(model, tokens, each),
            updates=runs * updates, loaded=runs * size.parameters, kept=kept * whole,
            weights=weights,
            activations=logits + size.layers * self.layer(model, at_once, AUTOGRAD, dtype),
            dtype=dtype, sharded=full, assumed=lengths.assumed,
        )  # fmt: skip

    def finetune(self, w: Mapping[str, str], rows: int | None, runs: int) -> Work:
        """Fine-tunes of a target on so many rows of a data set each, all of them for None."""
        target = self.plan.target(w["finetune"], w["model"])
        entry = self.plan.entry("finetunes", w["finetune"], target)
        found = self.lengths(w["dataset"], target, entry["training"]["max_length_tokens"])
        some = replace(found, rows=rows or found.rows)
        return self.training(target, some, entry, runs)

    def _train_direction(self, w) -> Work:
        entry = self.plan.entry("directions", w["direction"], w["model"])
        registry = "preferences" if entry["objective"] == "dpo" else "datasets"
        most = entry["training"]["max_length_tokens"]
        found = self.lengths(entry["data"], w["model"], most, registry)
        return self.training(w["model"], found, entry)

    def _train_pilot(self, w) -> Work:
        entry = self.plan.entry("pilots", w["pilot"], w["model"])
        found = self.lengths(entry["data"], w["model"], entry["training"]["max_length_tokens"])
        return self.training(w["model"], found, entry)

    def _finetune_subsets(self, w) -> Work:
        return self.finetune(w, self.config["subsets"]["rows"], len(self.plan.windows))

    def _finetune_all_rows(self, w) -> Work:
        return self.finetune(w, None, 1)

    def _finetune_treated_rows(self, w) -> Work:
        target = self.plan.target(w["finetune"], w["model"])
        training = self.plan.entry("finetunes", w["finetune"], target)["training"]
        entry, most = self.config["treatments"][w["treatment"]], training["max_length_tokens"]
        rows = self.lengths(w["dataset"], target, most).rows
        added = self.lengths(entry["data"], target, most).rows if "data" in entry else 0
        return self.finetune(w, row_count(entry, rows, added), 1)

    def _finetune_groups(self, w) -> Work:
        groups = self.config["groups"][w["groups"]]
        return self.finetune(w, groups["size"], groups["random_groups"] + groups["biased_groups"])

    def sandbox(self, model: str, rows: int, training: Mapping[str, Any], sequences: int) -> Work:
        """A training of all weights of a sandbox's model; sequences: of each of its rows."""
        entry = {"training": training, "tuning": "full"}
        known = self.known.lengths("sandbox", "corpus", model, training["max_length_tokens"])
        found = self.training(model, Lengths(rows, known.mean * sequences, known.longest), entry)
        return replace(found, gpus=1, loaded=0.0)

    def _pretrain_model(self, w) -> Work:
        settings = self.plan.setting("sandbox", w["model"])
        return self.sandbox(w["model"], settings["corpus"]["rows"], settings["pretraining"], 1)

    def _align_model(self, w) -> Work:
        settings = self.plan.setting("sandbox", w["model"])
        rows = settings["alignment"]["rows"]
        return self.sandbox(w["model"], rows, settings["alignment_training"], 1)

    def _tune_model(self, w) -> Work:
        spec = self.config["models"][w["model"]]
        most = spec["training"]["max_length_tokens"]
        found = [self.lengths(name, w["model"], most) for name in spec["data"]]
        rows = sum(lengths.rows for lengths in found)
        tokens = sum(lengths.rows * lengths.mean for lengths in found)
        whole = Lengths(
            rows, tokens / rows, max(lengths.longest for lengths in found),
            any(lengths.assumed for lengths in found),
        )  # fmt: skip
        return replace(self.training(w["model"], whole, {**spec, "tuning": "full"}), gpus=1)

    def _train_cost_model(self, w) -> Work:
        settings = self.plan.setting("sandbox", w["model"])["cost"]
        return self.sandbox(w["model"], settings["rows"], settings["training"], 2)

    def _train_guard_model(self, w) -> Work:
        settings = self.plan.setting("sandbox", w["model"])["guard"]
        return self.sandbox(w["model"], 2 * settings["rows"], settings["training"], 1)

    # Passes over rows.

    def rows_of_shard(self, dataset: str, shard: str, model: str) -> int:
        """Rows of a shard, counted from 0."""
        size = self.config["gradients"]["rows_per_shard"]
        return min(size, self.scored(dataset, model).rows - int(shard) * size)

    def scored(self, dataset: str, model: str) -> Lengths:
        return self.lengths(dataset, model, self.config["gradients"]["max_length_tokens"])

    def tokens_at_once(self, lengths: Lengths, rows: int) -> float:
        most = self.config["gradients"]["max_tokens_per_batch"]
        most = CPU_TOKENS if most == "auto" else most
        return max(min(most, rows * lengths.mean), lengths.longest)

    def reading(
        self,
        model: str,
        dataset: str,
        rows: float,
        each: int,
        kept: float,
        at_once=None,
        dtype=None,
    ) -> Work:
        """Passes of so many operations per parameter over so many rows of a data set."""
        lengths, size = self.scored(dataset, model), self.known.model(model)
        dtype = dtype or self.config["gradients"]["dtype"]
        operations = self.passes(model, rows * lengths.mean, each)
        tokens = at_once or self.tokens_at_once(lengths, int(rows))
        if each == FORWARD:
            activations = self.layer(model, tokens, NO_GRADIENT, dtype)
        else:
            activations = size.layers * self.layer(model, tokens, ENGINE, dtype)
        logits = min(tokens * size.vocabulary, LOGITS_AT_ONCE)
        activations += LOGITS_COPIES * logits * BYTES["float32"]
        return Work(
            model, "infer", learning=0.0 if each == FORWARD else operations,
            forward=operations if each == FORWARD else 0.0, loaded=size.parameters, kept=kept,
            weights=size.parameters * BYTES[dtype], activations=activations, dtype=dtype,
            assumed=lengths.assumed,
        )  # fmt: skip

    def _collect_gradients(self, w) -> Work:
        rows = self.rows_of_shard(w["dataset"], w["shard"], w["model"])
        # Per row and module: a squared norm and a product, in float32.
        kept = rows * MODULES * 2 * BYTES["float32"]
        return self.reading(w["model"], w["dataset"], rows, ACTIVATIONS, kept)

    def _collect_full_gradients(self, w) -> Work:
        rows = self.rows_of_shard(w["dataset"], w["shard"], w["model"])
        found = self.reading(w["model"], w["dataset"], rows, WEIGHTS, rows * 32)
        # Each anchor is as large as the model.
        copies = 1 + len(self.plan.gradient_anchors[w["reading"]])
        return replace(found, weights=copies * found.weights)

    def _collect_hidden_states(self, w) -> Work:
        rows = self.rows_of_shard(w["dataset"], w["shard"], w["model"])
        width = self.known.model(w["model"]).width
        kept = rows * width * BYTES["float32"]
        return self.reading(w["model"], w["dataset"], rows, FORWARD, kept)

    def _measure_token_losses(self, w) -> Work:
        return self.reading(w["model"], w["dataset"], TOKEN_LOSS_ROWS, FORWARD, 0)

    def _measure_loss_changes(self, w) -> Work:
        steps = self.config["tables"][w["table"]]
        rows = steps["rows"] * (1 + len(steps["alphas"]))
        return self.reading(w["model"], w["dataset"], rows, FORWARD, 0)

    def _measure_row_losses(self, w) -> Work:
        model, data = w["model"], w["dataset"]
        lengths, states = self.scored(data, model), self.state_count(model, w["subject"], w["part"])
        dtype = self.plan.setting("evaluation", model)["dtype"]
        # A row at a time, at every state.
        found = self.reading(model, data, states * lengths.rows, FORWARD, 0, lengths.longest, dtype)
        return replace(found, weights=self.steered_weights(model, dtype))

    def _measure_token_shares(self, w) -> Work:
        chosen = sum(self.config["explain"][key] for key in ("riskiest", "middling", "safest"))
        rows = min(chosen, self.scored(w["dataset"], w["model"]).rows)
        found = self.reading(w["model"], w["dataset"], rows, ACTIVATIONS, 0)
        # A pass per term, on a model that is loaded once.
        terms = len(self.plan.terms(w["method"], w["model"]))
        return replace(found, learning=terms * found.learning)

    def _make_anchor(self, w) -> Work:
        data = self.plan.entry("anchors", w["anchor"], w["model"])["data"]
        lengths = self.scored(data, w["model"])
        size = self.known.model(w["model"]).parameters
        kept = size * BYTES[self.config["gradients"]["dtype"]]
        # A row at a time; beside the model its gradient, and the sum of those before.
        found = self.reading(w["model"], data, lengths.rows, WEIGHTS, kept, lengths.longest)
        return replace(found, weights=3 * found.weights)

    # Responses and judgements.

    def state_count(self, model: str, subject: str, part: str) -> int:
        listing = self.plan.subjects[model, subject].parts[int(part)]
        if "part" in listing:
            first, last = listing["part"]
            pilot = subject.removeprefix("pilots/")
            return min(last, self.plan.pilot_checkpoints(model, pilot) + 1) - first
        return len(listing.get("runs") or listing.get("alphas") or [1])

    def asking(self, model: str, size: int, batch: int, tokens: int, dtype: str, steered: bool):
        """Bytes of weights and of activations while so many prompts are answered or judged."""
        known = self.known.model(model)
        plain = known.parameters * BYTES[dtype]
        cache = batch * tokens * known.layers * 2 * known.kv * BYTES[dtype]
        passing = self.layer(model, batch * size, NO_GRADIENT, dtype)
        return self.steered_weights(model, dtype) if steered else plain, cache + passing

    def steered_weights(self, model: str, dtype: str) -> float:
        """Bytes of a model's weights, and of a copy of those that a state changes."""
        known = self.known.model(model)
        changed = known.parameters - known.vocabulary * known.width
        return (known.parameters + changed) * BYTES[dtype]

    def _generate_responses(self, w) -> Work:
        model, settings = w["model"], self.plan.setting("evaluation", w["model"])
        asked = self.lengths(w["benchmark"], model, None, "benchmarks")
        states = self.state_count(model, w["subject"], w["part"])
        return self.generating(model, asked, states, settings["max_new_tokens"], settings)

    def generating(
        self, model: str, asked: Lengths, states: int, most: int, settings: Mapping[str, Any]
    ) -> Work:
        size, batch = self.known.model(model).parameters, settings["batch_size"]
        batches = -(-asked.rows // batch)
        # Every new token of a batch reads all weights; the longest response ends it.
        steps = states * batches * most
        at_once = min(batch, asked.rows)
        weights, activations = self.asking(
            model, asked.longest, at_once, asked.longest + most, settings["dtype"], states > 0
        )
        return Work(
            model, "infer", gpus=float("inf"),
            forward=self.passes(model, states * asked.rows * asked.mean, FORWARD),
            steps=steps, step_operations=self.passes(model, asked.rows / batches, FORWARD),
            step_bytes=size * BYTES[settings["dtype"]], loaded=size,
            kept=states * asked.rows * self.known.response_tokens(model) * 5,
            weights=weights, activations=activations, dtype=settings["dtype"],
            assumed=asked.assumed,
        )  # fmt: skip

    def _search_layers(self, w) -> Work:
        model, entry = w["model"], self.plan.entry("layers", w["layer"], w["model"])
        asked = self.lengths(self.plan.layer_prompts(model, w["layer"]), model, None, "benchmarks")
        layers = entry.get("last", self.known.model(model).layers) - entry["first"] + 1
        settings = self.plan.setting("evaluation", model)
        tries = max(layers, 1) * len(entry["factors"])
        found = self.generating(model, asked, tries, entry["max_new_tokens"], settings)
        return replace(found, gpus=1)

    def _judge_responses(self, w) -> Work:
        states = self.state_count(w["model"], w["subject"], w["part"])
        asked = self.lengths(w["benchmark"], w["model"], None, "benchmarks")
        return self.judging(w["judge"], w["model"], asked, states)

    def judging(self, judge: str, responding: str, asked: Lengths, states: int) -> Work:
        """A judge's work on the responses to prompts at so many states."""
        reads, kind = self.plan.judge_reads(judge), self.config["judges"][judge]["kind"]
        model = self.plan.own_model(judge) or responding
        count = states * asked.rows
        if reads is None:
            return Work(model, "infer", gpus=0, kept=count * 64)
        size = self.known.model(model)
        if reads == "subject":
            # A prompt is read once, and all of them behind it.
            openings = {"sandbox": 4, "openings": 2}[kind] * OPENING_TOKENS
            total = count * (asked.mean + openings)
            tokens = asked.longest + openings
        else:
            total = count * (asked.mean + self.known.response_tokens(responding))
            tokens = asked.longest + self.plan.setting("evaluation", responding)["max_new_tokens"]
        dtype = self.plan.setting("evaluation", model)["dtype"]
        at_once = min(PROMPTS_PER_BATCH, asked.rows)
        weights, activations = self.asking(
            model, tokens, at_once, tokens, dtype, reads == "subject"
        )
        # In float32, as they are and normalised.
        activations += 2 * at_once * OPENING_TOKENS * size.vocabulary * BYTES["float32"]
        return Work(
            model, "infer", gpus=1 if reads == "cost" else float("inf"),
            forward=self.passes(model, total, FORWARD), loaded=size.parameters, kept=count * 64,
            weights=weights, activations=activations, dtype=dtype, assumed=asked.assumed,
        )  # fmt: skip

    def _judge_rows(self, w) -> Work:
        model = self.plan.own_model(w["judge"])
        assert model is not None  # of no other kind is a judge of rows
        rows = self.rows_of_shard(w["dataset"], w["shard"], model)
        lengths = self.scored(w["dataset"], model)
        found = self.judging(w["judge"], model, replace(lengths, rows=rows), 1)
        forward = self.passes(model, rows * lengths.mean, FORWARD)
        return replace(found, forward=forward)

    def _fetch_direction(self, w) -> Work:
        # The model is read for its hash. Checkpoints that nothing here knows of are kept besides.
        size, kept = self.known.model(w["model"]).parameters, self.adapter(w["model"])
        weights = size * BYTES["float32"]
        return Work(w["model"], "infer", gpus=0, loaded=size, kept=kept, weights=weights)

    def _fetch_model(self, w) -> Work:
        size = self.known.model(w["model"]).parameters
        kept = size * BYTES["bfloat16"]
        weights = size * BYTES["float32"]
        packed = self.config["models"][w["model"]]["source"].endswith(".gguf")
        loaded = size * (GGUF_LOADS if packed else 1)
        return Work(w["model"], "infer", gpus=0, loaded=loaded, kept=kept, weights=weights)
