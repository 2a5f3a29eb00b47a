"""What a validated configuration asks for: looked up by the rules, name by name.

Every name that varies within a run comes from the configuration;
what it stands for is looked up here, never read out of the name or a path.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby, product
from pathlib import Path
from typing import Any

import yaml

from sqsd.config import (
    ALL,
    ALL_ROWS,
    DRAWN,
    MEASURES,
    READ_BY,
    count_rows,
    curve_of,
    experiment_names,
    for_model,
    named_experiments,
    ordered,
    training_steps,
)
from sqsd.errors import ConfigurationError
from sqsd.files import written_whole
from sqsd.groups import group_names
from sqsd.judges import KINDS as JUDGES
from sqsd.judges import OWN
from sqsd.parts import Part, part_inputs, part_params
from sqsd.paths import Paths
from sqsd.published import published
from sqsd.readings import (
    Gradient,
    HiddenState,
    Judged,
    Outcomes,
    Reading,
    ScoreFile,
    Scores,
    Texts,
    Tokens,
    Update,
)
from sqsd.scorers import make_scorer
from sqsd.sensitivity import position
from sqsd.sources import several
from sqsd.treatments import BY_RISK, check_rows_left

# What has every row's loss at the model as it is, and needs nothing trained before it.
LOSSES = Gradient()


@dataclass(frozen=True)
class Arm:
    """A method on an experiment: what a row of a table is about."""

    experiment: str
    model: str
    dataset: str
    method: str


@dataclass(frozen=True)
class Subject:
    """States that are evaluated together: their listing in parts, and the folders they lie in.

    parts: listings of `states.list_states`; runs: folders made by training, part by part.
    """

    model: str
    name: str
    parts: tuple[Mapping[str, Any], ...]
    runs: tuple[tuple[str, ...], ...]

    def part_names(self) -> list[str]:
        return [str(i) for i in range(len(self.parts))]


def write_config(plan: "Plan") -> None:
    """The resolved configuration of a run, beside its results, whole or not at all."""
    path = Path(plan.paths.config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(yaml.safe_dump(plan.resolved, sort_keys=False))


class Plan:
    """A resolved configuration (`sqsd.config`), which is valid, with the paths of its run."""

    def __init__(self, config: Mapping[str, Any]):
        self.resolved = config
        self.config: Mapping[str, Any] = ordered(config)
        self.paths = Paths(config["run"])
        self.windows = [f"s{k}" for k in range(1, config["subsets"]["count"] + 1)]

    def entry(self, registry: str, name: str, model: str) -> dict[str, Any]:
        """An entry of a registry as it is for a model."""
        return for_model(self.config[registry][name], model)

    def setting(self, section: str, model: str) -> dict[str, Any]:
        """A section of settings as it is for a model."""
        return for_model(self.config[section], model)

    def seed(self, model: str) -> int:
        return self.config["models"][model]["seed"]

    def models_made_by(self, rule: str) -> list[str]:
        """The models that a rule makes, by their sources."""
        makers = {
            "sandbox": "align_model", "sandbox:cost": "train_cost_model",
            "sandbox:guard": "train_guard_model", "tuned": "tune_model",
        }  # fmt: skip
        models = self.config["models"].items()
        return [m for m, spec in models if makers.get(spec["source"], "fetch_model") == rule]

    def fetch_spec(self, model: str) -> dict[str, Any]:
        """What a model is fetched by: its entry, and `guard` where a judge has it as a guard."""
        judges = self.config["judges"].values()
        is_guard = any(j["kind"] == "guard" and j["model"] == model for j in judges)
        spec = {k: v for k, v in self.config["models"][model].items() if k != "seed"}
        return spec | ({"guard": True} if is_guard else {})

    def own_files(self, registry: str, name: str) -> list[str]:
        """The user's own files that an entry is made of: one of rows, or those of a model's folder.

        Where one of them changes, so does what is made of it.
        """
        path = Path(self.config[registry][name]["source"])
        files = path.iterdir() if path.is_dir() else [path]
        return sorted(str(file) for file in files if file.is_file())

    @cached_property
    def given_directions(self) -> list[str]:
        """The directions that others have trained."""
        return [name for name, entry in self.config["directions"].items() if "source" in entry]

    def given_files(self, direction: str) -> list[str]:
        """The files of a direction that others have trained, and of its checkpoints."""
        folder = Path(self.config["directions"][direction]["source"])
        return sorted(str(file) for file in folder.rglob("*") if file.is_file())

    def benchmark(self, model: str, role: str) -> str:
        """The benchmark that plays a role (`tuning`, `test`, ...) for a model."""
        return self.setting("evaluation", model)["benchmarks"][role]

    def guard(self, model: str) -> str | None:
        """The benchmark that every chosen state of a model must pass, None for no guard."""
        role = self.setting("sensitivity", model)["guard"]
        return None if role is None else self.benchmark(model, role)

    def judge(self, model: str, measure: str) -> str:
        """The judge of a measure for a model."""
        return self.setting("evaluation", model)["judges"][measure]

    def direction_rows(self, model: str, direction: str) -> str:
        """Table of the rows that a direction of a model is trained on."""
        entry = self.entry("directions", direction, model)
        table = self.paths.dataset if entry["objective"] == "sft" else self.paths.preferences
        return table(entry["data"])

    def shards(self, dataset: str) -> list[str]:
        """Names of the shards of a data set's rows."""
        size = self.config["gradients"]["rows_per_shard"]
        rows = count_rows("datasets", self.config["datasets"][dataset])
        assert rows is not None
        return [f"{i:05d}" for i in range(-(-rows // size))]

    def needs(self, method: str, model: str) -> dict[str, Reading]:
        return make_scorer(self.entry("methods", method, model)).needs()

    def reading_files(self, model: str, dataset: str, method: str) -> dict[str, list[str]]:
        """Files of a method's readings: `<reading>_<role>` by name."""
        return {
            f"{name}_{role}": self.reading_tables(model, dataset, reading, role)
            for name, reading in self.needs(method, model).items()
            for role in reading.tables
        }

    def reading_tables(self, model: str, dataset: str, reading: Reading, role: str) -> list[str]:
        """Files of one of a reading's tables, shard by shard."""
        dataset = reading.dataset or dataset
        shards, paths = self.shards(dataset), self.paths
        match reading:
            case Update(state, direction):
                return [paths.shard(model, dataset, state, direction, s, role) for s in shards]
            case HiddenState(layer, token):
                return [paths.hidden_states(model, dataset, layer, str(token), s) for s in shards]
            case Gradient():
                return [paths.gradients(model, dataset, reading.name, s, role) for s in shards]
            case Judged(judge):
                return [paths.row_judgements(judge, dataset, s) for s in shards]
            case Scores(method):
                return [paths.scores(model, dataset, method)]
            case Outcomes(groups, finetune, benchmark):
                if role == "groups":
                    return [paths.groups(model, dataset, groups)]
                return self.group_judgements(finetune, model, dataset, groups, benchmark)
            case ScoreFile(source):
                return [self.paths.dataset(dataset) if role == "rows" else source]
            case Tokens() | Texts():
                samples = role == "samples"
                return [paths.samples(model, dataset) if samples else paths.dataset(dataset)]

    def curated(self) -> list[str]:
        """Folders of the rows of every selected curation, for each of its experiments."""
        return [
            self.paths.curated(name, experiment["model"], experiment["dataset"])
            for name in self.config["selection"]["curations"]
            for experiment in self.table_experiments(self.config["curations"][name]).values()
        ]

    def curation(self, curation: str, model: str, dataset: str) -> dict[str, Any]:
        """What card and manifest of a curated data set tell of it."""
        entry = self.config["curations"][curation]
        source = self.config["datasets"][dataset]["source"]
        return {
            "source": source, "dataset": dataset, "model": model,
            "model_source": self.config["models"][model], "method": entry["method"],
            "drop": entry["drop"],
        }  # fmt: skip

    def terms(self, method: str, model: str) -> dict[str, Update]:
        """What a method's score is the sum of, by name, token by token.

        Raises ConfigurationError for a method whose score is no such sum.
        """
        entry = self.entry("methods", method, model)
        if entry["kind"] != "sqsd":
            raise ConfigurationError(
                f"methods.{method}: kind '{entry['kind']}' has no score that is a sum over tokens, "
                "so its rows cannot be explained; name a method of kind 'sqsd', or "
                "leave the curation that has this one out of selection.curations"
            )
        needs = self.needs(method, model).items()
        return {name: reading for name, reading in needs if isinstance(reading, Update)}

    def term_files(self, model: str, dataset: str, method: str) -> dict[str, str | list[str]]:
        """What a method's terms are read at and against: `<term>_state`, and so on."""
        found: dict[str, str | list[str]] = {}
        for name, term in self.terms(method, model).items():
            found[f"{name}_state"] = self.paths.state(model, term.state)
            found[f"{name}_adapter"] = self.state_run(model, term.state)
            found[f"{name}_direction"] = self.paths.direction(model, term.direction)
        return found

    def term_checkpoints(self, model: str, method: str) -> dict[str, int | str]:
        """The checkpoints of the directions of a method's terms, by term."""
        return {
            name: self.entry("directions", term.direction, model)["checkpoint"]
            for name, term in self.terms(method, model).items()
        }

    def term_modules(self, model: str, dataset: str, method: str) -> dict[str, list[str]]:
        """Files of what every module has of a method's terms: `<term>_modules`."""
        return {
            f"{name}_modules": self.reading_tables(model, dataset, term, "modules")
            for name, term in self.terms(method, model).items()
        }

    def explained(self) -> list[str]:
        """Files that say why the rows of every selected curation have their scores, each once."""
        found = []
        for name in self.config["selection"]["curations"]:
            entry = self.config["curations"][name]
            for experiment in self.table_experiments(entry).values():
                self.terms(entry["method"], experiment["model"])
                files = self.paths.explained(**experiment, method=entry["method"])
                found += files.values()
        return list(dict.fromkeys(found))

    def reading_times(self, model: str, dataset: str, method: str) -> list[str]:
        """Files with the seconds of the jobs that make a method's readings, each once."""
        readings = self.needs(method, model).values()
        found = (self._times(model, reading.dataset or dataset, reading) for reading in readings)
        return list(dict.fromkeys(chain.from_iterable(found)))

    def _times(self, model: str, dataset: str, reading: Reading) -> list[str]:
        def times(rule: str, place: str) -> list[str]:
            return [self.paths.times(rule, f"{place}/{shard}") for shard in self.shards(dataset)]

        match reading:
            case Update(state, direction):
                return times("collect_gradients", f"{model}/{dataset}/{state}/{direction}")
            case HiddenState(layer, token):
                return times("collect_hidden_states", f"{model}/{dataset}/{layer}/token{token}")
            case Gradient(anchors):
                made = [self.paths.times("make_anchor", f"{model}/{anchor}") for anchor in anchors]
                return times("collect_full_gradients", f"{model}/{dataset}/{reading.name}") + made
            case Judged(judge):
                return times("judge_rows", f"{judge}/{dataset}")
            case Scores(method):
                return self.reading_times(model, dataset, method)
            case Outcomes() | Tokens() | Texts() | ScoreFile():
                return []

    @cached_property
    def gradient_anchors(self) -> dict[str, tuple[str, ...]]:
        """The anchors of every `Gradient` that a method or a table reads, by its name."""
        readings = (
            reading
            for method in self.config["methods"]
            for model in self.config["models"]
            for reading in self.needs(method, model).values()
        )
        found = (reading for reading in readings if isinstance(reading, Gradient))
        return {reading.name: reading.anchors for reading in (LOSSES, *found)}

    def layer_prompts(self, model: str, layer: str) -> str:
        """The benchmark that a layer is searched by."""
        return self.benchmark(model, self.entry("layers", layer, model)["benchmark"])

    def layer_search(self, model: str, layer: str) -> list[str]:
        """The search of a layer, none where it is named."""
        named = "layer" in self.entry("layers", layer, model)
        return [] if named else [self.paths.layer_search(model, layer)]

    def state_run(self, model: str, state: str) -> list[str]:
        """The training run that a state's adapter is of; none for theta_0 itself."""
        entry = self.entry("states", state, model)
        if "unadapted" in entry:
            return []
        if "pilot" in entry:
            return [self.paths.pilot(model, entry["pilot"])]
        return [self.paths.direction(model, entry["direction"])]

    def state_sources(self, model: str, state: str) -> dict[str, list[str]]:
        """What a state is chosen from, by name; `guard` and `reference` where there is a guard.

        A pinned state depends on its run and on its own answers to the guard, and on no other
        state; a searched one on the candidates it names, and their neighbours.
        """
        entry = self.entry("states", state, model)
        sources = {"run": self.state_run(model, state)}
        if "unadapted" in entry:
            return sources | {"guard": [], "reference": []}
        if is_pinned(entry):
            return sources | self.guard_files(model, self.pinned_subject(model, state))
        if "pilot" in entry:
            trajectory = self.paths.trajectory(model, entry["pilot"], entry["direction"])
            measured = self.measured(model, self.pilot_subject(model, entry["pilot"]))
            return sources | {"trajectory": [trajectory]} | measured
        curve = self.steering_subject(model, entry["direction"], entry["checkpoint"])
        return sources | self.measured(model, curve, self.neighbours(model, entry["alphas"]))

    def measured(
        self, model: str, subject: Subject, wanted: list[float] | None = None
    ) -> dict[str, list[str]]:
        """What a search reads of a subject: judgements, and its guard's files."""
        tuning = self.benchmark(model, self.setting("sensitivity", model)["benchmark"])
        judge = self.judge(model, "safety_score")
        judgements = self.judgements(subject, tuning, judge, wanted)
        return {"judgements": judgements} | self.guard_files(model, subject, wanted)

    def guard_files(
        self, model: str, subject: Subject, wanted: list[float] | None = None
    ) -> dict[str, list[str]]:
        """A subject's answers to the guard and what they should be; none without a guard."""
        guard = self.guard(model)
        if guard is None:
            return {"guard": [], "reference": []}
        responses = self.responses(subject, guard, wanted)
        return {"guard": responses, "reference": [self.paths.benchmark(guard)]}

    @cached_property
    def checked_methods(self) -> list[str]:
        """The methods that are checked before their scores are made, none without `trust`."""
        methods = self.config["methods"].items() if self.config["trust"] else ()
        return [name for name, entry in methods if entry["kind"] == "sqsd"]

    @cached_property
    def selected_methods(self) -> set[str]:
        """The methods of selected tables and curations, and those that one chooses among."""
        selection, config = self.config["selection"], self.config
        names = {config["curations"][name]["method"] for name in selection["curations"]}
        for table in selection["tables"]:
            names.update(config["tables"][table].get("methods", []))
        chosen = product(names, config["models"])
        among = [self.entry("methods", *pair).get("among", []) for pair in chosen]
        return names.union(*among)

    def trust(self, model: str, method: str) -> list[str]:
        """The checks of a method; none where it has none."""
        return [self.paths.trust(model, method)] if method in self.checked_methods else []

    def checked(self, model: str, state: str, direction: str) -> list[str]:
        """What is there once gradients may be collected; none without `trust`."""
        return [self.paths.checked(model, state, direction)] if self.config["trust"] else []

    def trust_before(self, model: str, state: str, direction: str) -> list[str]:
        """The checks that gradients come after: of the selected methods that read them.

        Of every method that does, where none is selected and somebody asks by name.
        """
        reading = Update(state, direction)
        readers = [
            method
            for method in self.checked_methods
            if reading in self.needs(method, model).values()
        ]
        selected = [method for method in readers if method in self.selected_methods]
        return [self.paths.trust(model, method) for method in selected or readers]

    def term_entries(self, model: str, method: str) -> dict[str, dict[str, str]]:
        """Direction and state of each term that a method of kind `sqsd` has."""
        entry = self.entry("methods", method, model)
        return {term: entry[term] for term in ("danger", "safety") if term in entry}

    def trust_sources(self, model: str, method: str) -> dict[str, list[str]]:
        """What a method's checks read, by name (`trust.check_trust`)."""
        tuning = self.benchmark(model, self.setting("sensitivity", model)["benchmark"])
        terms, alphas = self.term_entries(model, method), [0, self.config["trust"]["alpha"]]
        names = {term: of["direction"] for term, of in terms.items()}
        used = {t: self.entry("directions", v, model)["checkpoint"] for t, v in names.items()}
        curves = {t: self.steering_subject(model, v, used[t]) for t, v in names.items()}
        scores = self.judge(model, "safety_score")
        sources = {t: self.judgements(c, tuning, scores, alphas) for t, c in curves.items()}
        base, verdicts = next(iter(curves.values())), self.judge(model, "asr")
        sources["verdicts"] = self.judgements(base, tuning, verdicts, [0])
        danger = terms.get("danger")
        state = danger and self.entry("states", danger["state"], model)
        if not danger or not state or "pilot" not in state:
            return sources | {"state": [], "trajectory": []}
        return sources | {
            "state": [self.paths.state(model, danger["state"])],
            "trajectory": [self.paths.trajectory(model, state["pilot"], danger["direction"])],
        }

    def search_settings(self, model: str, state: str) -> dict[str, float]:
        """The settings that a state's choice depends on."""
        entry, settings = self.entry("states", state, model), self.setting("sensitivity", model)
        if "unadapted" in entry:
            return {}
        used = ["minimum_exact_share"] if self.guard(model) else []
        if not is_pinned(entry):
            used += ["floor_fraction", "rank_floored"] if "pilot" in entry else ["delta"]
            used += ["rank_by"]
        return {name: settings[name] for name in used}

    def neighbours(self, model: str, alphas: list[float]) -> list[float]:
        """The measured alphas that the sensitivities of `alphas` are made of."""
        grid = self.setting("steering", model)["alphas"]
        delta = self.setting("sensitivity", model)["delta"]
        found = [position(grid, a + side * delta) for a in alphas for side in (-1, 0, 1)]
        return [grid[i] for i in sorted({i for i in found if i is not None})]

    def part_size(self, model: str, kind: str) -> int:
        return self.setting("evaluation", model)["states_per_job"][kind]

    def steering_subject(self, model: str, direction: str, checkpoint: int | str) -> Subject:
        """A direction at every alpha of the grid."""
        folder = self.paths.direction(model, direction)
        listing = {"folder": folder, "checkpoint": checkpoint}
        grid = self.setting("steering", model)["alphas"]
        size = self.part_size(model, "steering")
        parts = [listing | {"alphas": part} for part in chunks(grid, size)]
        return subject(model, f"steering/{direction}/{checkpoint}", parts, [[folder]] * len(parts))

    def pilot_subject(self, model: str, pilot: str) -> Subject:
        """theta_0 and every checkpoint of a pilot."""
        folder, size = self.paths.pilot(model, pilot), self.part_size(model, "pilot")
        ends = range(0, self.pilot_checkpoints(model, pilot) + 1, size)
        parts = [{"pilot": folder, "part": [start, start + size]} for start in ends]
        return subject(model, f"pilots/{pilot}", parts, [[folder]] * len(parts))

    def pinned_subject(self, model: str, state: str) -> Subject:
        """A pinned state alone."""
        entry, (run,) = self.entry("states", state, model), self.state_run(model, state)
        if "pilot" in entry:
            listing = {"pilot": run, "steps": [entry["step"]]}
        else:
            listing = {"folder": run, "checkpoint": entry["checkpoint"], "alphas": [entry["alpha"]]}
        return subject(model, f"states/{state}", [listing], [[run]])

    def base_subject(self, model: str) -> Subject:
        """theta_0 alone, before any fine-tune."""
        return subject(model, "base/theta-0", [{"theta_0": True}], [[]])

    def finetune_subject(self, finetune: str, arm: Arm) -> Subject:
        """The models fine-tuned on an arm's subsets, seed by seed: one more comes last."""
        return self._finetuned(finetune, arm, "seeds", self.windows)

    def all_rows_subject(self, finetune: str, arm: Arm) -> Subject:
        """The models fine-tuned on all rows of an arm's data set, whatever its method."""
        return self._finetuned(finetune, replace(arm, method=ALL_ROWS), "all_rows_seeds", [ALL])

    def _finetuned(self, finetune: str, arm: Arm, seeds: str, windows: list[str]) -> Subject:
        """seeds: the key of a fine-tune's entry that holds them."""
        target = self.target(finetune, arm.model)
        entry = self.entry("finetunes", finetune, target)
        runs = [
            {
                "folder": self.paths.finetune(
                    finetune, arm.model, arm.dataset, arm.method, str(seed), window
                ),
                "tuning": entry["tuning"], "window": window, "seed": seed,
            }
            for seed in entry[seeds]
            for window in windows
        ]  # fmt: skip
        parts = [{"runs": part} for part in chunks(runs, self.part_size(target, "finetunes"))]
        name = f"finetunes/{finetune}/{arm.model}/{arm.dataset}/{arm.method}"
        return subject(
            target, name, parts, [[run["folder"] for run in part["runs"]] for part in parts]
        )

    def treated_subject(self, finetune: str, arm: Arm, treatment: str) -> Subject:
        """The models fine-tuned on an arm's rows as treated, on the seeds of those on all rows."""
        made = self._finetuned(finetune, arm, "all_rows_seeds", [treatment])
        return replace(made, name=f"treated/{made.name.removeprefix('finetunes/')}/{treatment}")

    def treated_arms(self, spec: Mapping[str, Any], arms: Sequence[Arm]) -> list[tuple[str, Arm]]:
        """Treatments of an experiment with the arms whose scores they go by.

        arms: those of a table on one experiment. What goes by no scores is made once, under
        `ALL_ROWS` for a method.
        """
        by_risk = {
            name: self.config["treatments"][name]["kind"] in BY_RISK for name in spec["treatments"]
        }
        return [
            (name, arm)
            for name in spec["treatments"]
            for arm in (arms if by_risk[name] else [replace(arms[0], method=ALL_ROWS)])
        ]

    def treated_from(self, model: str, dataset: str, method: str, treatment: str) -> dict[str, str]:
        """What treated rows are made from, by name."""
        entry = self.config["treatments"][treatment]
        rows = {"rows": self.paths.dataset(dataset)}
        if entry["kind"] in BY_RISK:
            return rows | {"scores": self.paths.scores(model, dataset, method)}
        return rows | {"added": self.paths.dataset(entry["data"])}

    def check_rows_left(
        self, finetune: str, model: str, dataset: str, treatment: str, **_: str
    ) -> None:
        """Raises ConfigurationError as `treatments.check_rows_left`, of a file or counted rows."""
        rows = count_rows("datasets", self.config["datasets"][dataset])
        assert rows is not None
        training = self.entry("finetunes", finetune, self.target(finetune, model))["training"]
        entry = self.config["treatments"][treatment]
        check_rows_left(treatment, entry, rows, dataset, training["batch_size"])

    def reference_subjects(self, finetune: str, arm: Arm) -> dict[str, Subject]:
        """What is compared with the fine-tunes on subsets, by its name in a table.

        One and the same for every method of an experiment.
        """
        target = self.target(finetune, arm.model)
        found = {"before fine-tuning": self.base_subject(target)}
        if self.entry("finetunes", finetune, target).get("all_rows_seeds"):
            found["all rows"] = self.all_rows_subject(finetune, arm)
        return found

    def group_subject(self, finetune: str, model: str, dataset: str, groups: str) -> Subject:
        """The models fine-tuned on small groups of rows, seed by seed."""
        target = self.target(finetune, model)
        entry, spec = self.entry("finetunes", finetune, target), self.config["groups"][groups]
        folders = {
            seed: self.paths.group_runs(finetune, model, dataset, groups, str(seed))
            for seed in entry["seeds"]
        }
        names = group_names(spec["random_groups"] + spec["biased_groups"])
        runs = [
            {"folder": f"{folder}/{name}", "tuning": entry["tuning"], "window": name, "seed": seed}
            for seed, folder in folders.items()
            for name in names
        ]
        size = self.part_size(target, "finetunes")
        parts = [{"runs": part} for part in chunks(runs, size)]
        trained = [
            list(dict.fromkeys(folders[run["seed"]] for run in part["runs"])) for part in parts
        ]
        name = f"groups/{finetune}/{model}/{dataset}/{groups}"
        return subject(target, name, parts, trained)

    def group_judgements(
        self, finetune: str, model: str, dataset: str, groups: str, role: str
    ) -> list[str]:
        """Judgements of the models fine-tuned on small groups, by the judge of the Safety Score."""
        subject = self.group_subject(finetune, model, dataset, groups)
        judge = self.judge(subject.model, "safety_score")
        return self.judgements(subject, self.benchmark(subject.model, role), judge)

    def arm_subjects(self, spec: Mapping[str, Any], arm: Arm) -> list[Subject]:
        """What a table that names a fine-tune evaluates for one of its arms."""
        if spec["kind"] == "groups":
            return [self.group_subject(spec["finetune"], arm.model, arm.dataset, spec["groups"])]
        if spec["kind"] == "treatments":
            return [
                *self.reference_subjects(spec["finetune"], arm).values(),
                *(
                    self.treated_subject(spec["finetune"], treated, treatment)
                    for treatment, treated in self.treated_arms(spec, [arm])
                ),
            ]
        if spec["kind"] == "all-rows":
            return list(self.reference_subjects(spec["finetune"], arm).values())
        return [
            subject
            for finetune in several(spec["finetune"])
            for subject in (
                self.finetune_subject(finetune, arm),
                *self.reference_subjects(finetune, arm).values(),
            )
        ]

    @cached_property
    def subjects(self) -> dict[tuple[str, str], Subject]:
        """Every subject that a table may need, by model and name."""
        asked = map(named_experiments, self.config["tables"].values())
        names = [*self.config["selection"]["experiments"], *chain.from_iterable(asked)]
        found = [
            subject
            for model in dict.fromkeys(self.config["experiments"][e]["model"] for e in names)
            for subject in (
                *self.curves(model, self.config["directions"], self.config["states"]).values(),
                *(self.pilot_subject(model, pilot) for pilot in self.config["pilots"]),
                *(
                    self.pinned_subject(model, state)
                    for state in self.config["states"]
                    if is_pinned(self.entry("states", state, model))
                ),
            )
        ]
        for table, spec in self.config["tables"].items():
            for arm in self.arms(table) if "finetune" in spec else ():
                found += self.arm_subjects(spec, arm)
            found += map(self.base_subject, spec.get("models", []))
        for experiment in map(self.config["experiments"].get, names):
            found += [
                self.group_subject(reading.finetune, **experiment, groups=reading.groups)
                for method in self.config["methods"]
                for reading in self.needs(method, experiment["model"]).values()
                if isinstance(reading, Outcomes)
            ]
        return {(subject.model, subject.name): subject for subject in found}

    def curves(
        self, model: str, directions: Iterable[str], states: Iterable[str]
    ) -> dict[tuple[str, int | str], Subject]:
        """Directions at every alpha, by direction and checkpoint.

        Of each direction first the checkpoint that scores use, then those that states lie on.
        """
        points = [curve_of(self.entry("states", state, model)) for state in states]
        return {
            (direction, checkpoint): self.steering_subject(model, direction, checkpoint)
            for direction in directions
            for checkpoint in (
                self.entry("directions", direction, model)["checkpoint"],
                *(point[2] for point in points if point[:2] == ("direction", direction)),
            )
        }

    def judge_reads(self, judge: str) -> str | None:
        """What a judge reads: the `subject` that responded, a model of its own, or None."""
        return JUDGES[self.config["judges"][judge]["kind"]].reads

    def judge_model(self, judge: str, subject: str) -> str:
        """The model that a judge's job takes its resources by."""
        return self.own_model(judge) or subject

    def own_model(self, judge: str) -> str | None:
        """The model of a judge's own, where it has one."""
        own = self.judge_reads(judge) in OWN
        return self.config["judges"][judge]["model"] if own else None

    def judged_models(
        self, judge: str, model: str, subject: Subject, part: int
    ) -> dict[str, list[str]]:
        """The weights that a judge reads: of a part of a subject, its own, or none."""
        reads = self.judge_reads(judge)
        if reads != "subject":
            return {"model": [], "runs": [], "judge_model": self.own_weights(judge)}
        runs = list(subject.runs[part])
        return {"model": [self.paths.model(model)], "runs": runs, "judge_model": []}

    def own_weights(self, judge: str) -> list[str]:
        """The folder of a judge's own model, where it has one."""
        own = self.own_model(judge)
        return [] if own is None else [self.paths.model(own)]

    def responses(
        self, subject: Subject, benchmark: str, wanted: list[float] | None = None
    ) -> list[str]:
        """Files of a subject's responses, of the parts that hold one of the wanted alphas."""
        return [
            self.paths.responses(subject.model, subject.name, benchmark, part)
            for part in parts_with(subject, wanted)
        ]

    def judgements(
        self, subject: Subject, benchmark: str, judge: str, wanted: list[float] | None = None
    ) -> list[str]:
        """Files of a judge's judgements, of the parts that hold one of the wanted alphas."""
        return [
            self.paths.judgements(subject.model, subject.name, benchmark, judge, part)
            for part in parts_with(subject, wanted)
        ]

    def pilot_checkpoints(self, model: str, pilot: str) -> int:
        """The checkpoints of a pilot, or more where rows turn out to be unusable."""
        entry = self.entry("pilots", pilot, model)
        rows = count_rows("datasets", self.config["datasets"][entry["data"]])
        assert rows is not None
        return -(-training_steps(rows, entry["training"]) // entry["save_steps"])

    def target(self, finetune: str, model: str) -> str:
        """The model that is fine-tuned: the one that a fine-tune names, else that of the scores."""
        return self.config["finetunes"][finetune].get("model", model)

    def finetune_lora(self, finetune: str, target: str) -> dict[str, Any] | None:
        """The adapter that a fine-tune trains, None where it trains all weights."""
        full = self.entry("finetunes", finetune, target)["tuning"] == "full"
        return None if full else self.config["lora"]

    @cached_property
    def models(self) -> list[str]:
        """Models of the selected experiments."""
        return self.models_of({})

    def models_of(self, spec: Mapping[str, Any]) -> list[str]:
        """Models of a table's experiments."""
        chosen = self.table_experiments(spec).values()
        return list(dict.fromkeys(experiment["model"] for experiment in chosen))

    def arms(self, table: str) -> list[Arm]:
        """Every experiment and method of a table; of one without methods, all rows."""
        spec = self.config["tables"][table]
        return [
            Arm(name, **experiment, method=method)
            for name, experiment in self.table_experiments(spec).items()
            for method in spec.get("methods", [ALL_ROWS])
        ]

    def table_experiments(self, spec: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
        """The experiments of a table, model and data set by name."""
        names = experiment_names(self.config, spec)
        return {name: self.config["experiments"][name] for name in names}

    def table_files(self, table: str) -> dict[str, str]:
        """A table's output by format; a figure's too where its kind is drawn."""
        drawn = self.config["tables"][table]["kind"] in DRAWN
        return self.paths.table(table) | (self.paths.figure(table) if drawn else {})

    def table_parts(self, table: str) -> list[Part]:
        """What a table has a row or a curve for, with the files it is made of."""
        spec = self.config["tables"][table]
        make: Callable[[Mapping[str, Any]], Iterator[Part]] = {
            "subsets": self._subset_parts,
            "all-rows": self._all_rows_parts,
            "comparison": self._comparison_parts,
            "ranking": self._ranking_parts,
            "agreement": self._agreement_parts,
            "separation": self._separation_parts,
            "groups": self._group_parts,
            "judges": self._judges_parts,
            "models": self._model_parts,
            "states": self._state_parts,
            "alphas": self._alpha_parts,
            "checkpoints": self._checkpoint_parts,
            "trajectory": self._trajectory_parts,
            "steering": self._steering_parts,
            "lengths": self._length_parts,
            "losses": self._loss_parts,
            "token-losses": self._token_loss_parts,
            "first-order": self._first_order_parts,
            "treatments": self._treatment_parts,
        }[spec["kind"]]
        return list(make(spec | {"name": table}))

    def table_inputs(self, table: str) -> dict[str, list[str]]:
        """A table's files, each part's by names of its own."""
        return part_inputs(self.table_parts(table))

    def table_params(self, table: str) -> list[dict[str, Any]]:
        """A table's parts: names, options, and the names of their inputs by role."""
        return part_params(self.table_parts(table))

    def page_rows(self) -> list[Part]:
        """What the run's page shows of rows: those of every selected curation, each once.

        Of a method whose score is a sum over tokens, why they have it.
        """
        found = []
        for name in self.config["selection"]["curations"]:
            entry = self.config["curations"][name]
            for experiment in self.table_experiments(entry).values():
                place = {
                    "model": experiment["model"],
                    "dataset": experiment["dataset"],
                    "method": entry["method"],
                }
                files = {
                    "scores": [self.paths.scores(**place)],
                    "rows": [self.paths.dataset(experiment["dataset"])],
                }
                if self.entry("methods", entry["method"], experiment["model"])["kind"] == "sqsd":
                    why = self.paths.explained(**place)
                    files |= {role: [why[role]] for role in ("tokens", "modules", "nearest")}
                    files["repeats"] = [self.paths.repeats(experiment["dataset"])]
                found.append(Part({"curation": name, **place}, {"drop": entry["drop"]}, files))
        return found

    def page_tables(self) -> list[Part]:
        """The selected tables, with their figures, as the run's page shows them."""
        return [
            Part(
                {"table": name},
                {"title": self.config["tables"][name]["title"]},
                {
                    end: [path]
                    for end, path in self.table_files(name).items()
                    if end in ("md", "parquet", "svg")
                },
            )
            for name in self.config["selection"]["tables"]
        ]

    def page_entries(self) -> dict[str, str]:
        """What models and data sets of the selected experiments are, in a line each."""
        found = {}
        for name in self.config["selection"]["experiments"]:
            for kind, entry in self.config["experiments"][name].items():
                spec = self.config[f"{kind}s"][entry]
                keys = sorted(spec, key=lambda key: (key != "source", key))
                found[f"{kind} {entry}"] = ", ".join(f"{key}: {spec[key]}" for key in keys)
        return found

    def table_settings(self, table: str) -> dict[str, Any]:
        """What a table's kind asks for beside its parts, and what is published of it."""
        spec = self.config["tables"][table]
        name = spec.get("published")
        shown = {"published": published()[name]} if name else {}
        return self._kind_settings(spec) | shown

    def _kind_settings(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        rows = self.config["subsets"]["rows"]
        if spec["kind"] == "groups":
            return {"against": spec["against"]}
        if spec["kind"] == "agreement":
            return {"rows": rows}
        if spec["kind"] == "subsets":
            return {"windows": self.windows, "measure": spec["measure"]}
        if spec["kind"] == "all-rows":
            return {"measure": spec["measure"]}
        if spec["kind"] == "comparison":
            return {"windows": self.windows, **{key: spec[key] for key in ("measure", "against")}}
        if spec["kind"] == "judges":
            return {"reference": spec["reference"]}
        if spec["kind"] == "lengths":
            return {"windows": self.windows, "rows": rows}
        if spec["kind"] == "losses":
            return {"rows": rows}
        if spec["kind"] == "token-losses":
            return {"group": spec["group"]}
        return {}

    def _subset_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for experiment, found in groupby(self.arms(spec["name"]), lambda arm: arm.experiment):
            arms = list(found)
            for finetune in several(spec["finetune"]):
                names = {"experiment": experiment} | listed_name(spec, "finetune", finetune)
                yield from self._finetune_parts(spec, names, finetune, arms)

    def _finetune_parts(
        self, spec: Mapping[str, Any], names: Mapping[str, str], finetune: str, arms: list[Arm]
    ) -> Iterator[Part]:
        """Parts of one fine-tune on one experiment; names: what stands before the method's."""
        yield from self._reference_parts(spec, names, finetune, arms[0])
        target = self.target(finetune, arms[0].model)
        benchmark = self.benchmark(target, spec["benchmark"])
        judge = spec.get("judge", self.judge(target, READ_BY[spec["measure"]]))
        seeds = self.entry("finetunes", finetune, target)["seeds"]
        for arm in arms:
            subject = self.finetune_subject(finetune, arm)
            yield Part(
                {**names, "method": arm.method},
                {"seeds": seeds, "random": self.is_random(arm.method)},
                {"judgements": self.judgements(subject, benchmark, judge)},
            )

    def _reference_parts(
        self, spec: Mapping[str, Any], names: Mapping[str, str], finetune: str, arm: Arm
    ) -> Iterator[Part]:
        """Parts of what fine-tunes on an experiment's subsets are compared with."""
        target = self.target(finetune, arm.model)
        benchmark = self.benchmark(target, spec["benchmark"])
        judge = spec.get("judge", self.judge(target, READ_BY[spec["measure"]]))
        for name, subject in self.reference_subjects(finetune, arm).items():
            files = {"judgements": self.judgements(subject, benchmark, judge)}
            yield Part({**names, "method": name}, {"reference": True}, files)

    def _all_rows_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            names = {"experiment": arm.experiment}
            yield from self._reference_parts(spec, names, spec["finetune"], arm)

    def _comparison_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            target = self.target(spec["finetune"], arm.model)
            judge = spec.get("judge", self.judge(target, READ_BY[spec["measure"]]))
            subject = self.finetune_subject(spec["finetune"], arm)
            benchmark = self.benchmark(target, spec["benchmark"])
            yield Part(
                {"experiment": arm.experiment, "method": arm.method},
                {
                    "seeds": self.entry("finetunes", spec["finetune"], target)["seeds"],
                    "rows": count_rows("datasets", self.config["datasets"][arm.dataset]),
                },
                {
                    "judgements": self.judgements(subject, benchmark, judge),
                    "times": self.reading_times(arm.model, arm.dataset, arm.method),
                },
            )

    def arm_judgements(self, spec: Mapping[str, Any], arm: Arm, judge: str) -> list[str]:
        """A judge's judgements of what a table's fine-tune made of an arm's subsets."""
        subject = self.finetune_subject(spec["finetune"], arm)
        return self.judgements(subject, self.benchmark(subject.model, spec["benchmark"]), judge)

    def is_random(self, method: str) -> bool:
        """Whether a method is the control that others are compared with."""
        return self.config["methods"][method]["kind"] == "random"

    def _ranking_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            scores = self.paths.scores(arm.model, arm.dataset, arm.method)
            yield Part(
                {"experiment": arm.experiment, "method": arm.method},
                files={"scores": [scores], "rows": [self.paths.dataset(arm.dataset)]},
            )

    def _agreement_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            scores = self.paths.scores(arm.model, arm.dataset, arm.method)
            names = {"experiment": arm.experiment, "method": arm.method}
            yield Part(names, files={"scores": [scores]})

    def _separation_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        sides = {side: spec[side] for side in ("riskier", "safer")}
        for method in spec["methods"]:
            files = {
                side: [self.paths.scores(**self.config["experiments"][name], method=method)]
                for side, name in sides.items()
            }
            yield Part({**sides, "method": method}, files=files)

    def _group_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            files = {
                "scores": [self.paths.scores(arm.model, arm.dataset, arm.method)],
                "groups": [self.paths.groups(arm.model, arm.dataset, spec["groups"])],
                "judgements": self.group_judgements(
                    spec["finetune"], arm.model, arm.dataset, spec["groups"], spec["benchmark"]
                ),
            }
            yield Part({"experiment": arm.experiment, "method": arm.method}, files=files)

    def _judges_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for experiment, group in groupby(self.arms(spec["name"]), lambda arm: arm.experiment):
            arms = list(group)
            files = {
                judge: [file for arm in arms for file in self.arm_judgements(spec, arm, judge)]
                for judge in [*spec["judges"], spec["reference"]]
            }
            for judge in spec["judges"]:
                yield Part(
                    {"experiment": experiment, "judge": judge},
                    {"measure": self.judge_measure(judge)},
                    {"judgements": files[judge], "reference": files[spec["reference"]]},
                )

    def judge_measure(self, judge: str) -> str:
        """What a judge is compared by: its verdicts if it gives them, else those by its scores."""
        gives = JUDGES[self.config["judges"][judge]["kind"]].gives
        return "asr" if "asr" in gives else "asr_by_score"

    def _model_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for model, role in product(spec["models"], spec["benchmarks"]):
            files = self.curve(self.base_subject(model), role)
            yield Part({"model": model, "benchmark": role}, files=files)

    def _state_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for model in self.models:
            for state in spec["states"]:
                files = {"state": [self.paths.state(model, state)]}
                yield Part({"model": model, "state": state}, files=files)

    def _alpha_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for names, _, subject in self._named_curves(spec):
            ranking = self.paths.alpha_ranking(subject.model, subject.name)
            yield Part(names, files={"ranking": [ranking]})

    def _checkpoint_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for model in self.models:
            for direction in spec["directions"]:
                ranking = self.paths.checkpoint_ranking(model, spec["pilot"], direction)
                files = {"ranking": [ranking]}
                yield Part({"model": model, "direction": direction}, files=files)

    def _trajectory_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for model, pilot in product(self.models_of(spec), several(spec["pilot"])):
            names = {"model": model} | listed_name(spec, "pilot", pilot)
            curve = self.curve(self.pilot_subject(model, pilot), spec["benchmark"])
            for direction in spec["directions"]:
                trajectory = self.paths.trajectory(model, pilot, direction)
                files = {"trajectory": [trajectory], **curve}
                files["states"] = self.marked(spec, model, ("pilot", pilot))
                options = {"unit": self.score_unit(model)}
                yield Part({**names, "direction": direction}, options, files)

    def _steering_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for names, curve, subject in self._named_curves(spec):
            files = self.curve(subject, spec["benchmark"])
            files["states"] = self.marked(spec, subject.model, ("direction", *curve))
            yield Part(names, {"unit": self.score_unit(subject.model)}, files)

    def _named_curves(
        self, spec: Mapping[str, Any]
    ) -> Iterator[tuple[dict[str, str], tuple[str, int | str], Subject]]:
        """A table's curves of directions with their names, a checkpoint where any has several."""
        directions, states = spec["directions"], spec.get("states", [])
        curves = {model: self.curves(model, directions, states) for model in self.models}
        more = any(len(own) > len(directions) for own in curves.values())
        for model, own in curves.items():
            for (direction, checkpoint), subject in own.items():
                names = {"model": model, "direction": direction}
                if more:
                    names["checkpoint"] = str(checkpoint)
                yield names, (direction, checkpoint), subject

    def _length_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for arm in self.arms(spec["name"]):
            finetune, target = spec["finetune"], self.target(spec["finetune"], arm.model)
            judge = spec.get("judge", self.judge(target, "asr"))
            benchmark = self.benchmark(target, spec["benchmark"])
            subject = self.finetune_subject(finetune, arm)
            yield Part(
                {"experiment": arm.experiment, "method": arm.method},
                {"seeds": self.entry("finetunes", finetune, target)["seeds"]},
                {
                    "scores": [self.paths.scores(arm.model, arm.dataset, arm.method)],
                    "judgements": self.judgements(subject, benchmark, judge),
                },
            )

    def _loss_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for name, experiment in self.table_experiments(spec).items():
            samples = self.reading_tables(**experiment, reading=LOSSES, role="samples")
            yield Part({"experiment": name}, files={"samples": samples})

    def _token_loss_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for name, experiment in self.table_experiments(spec).items():
            files = {"losses": [self.paths.token_losses(**experiment)]}
            yield Part({"experiment": name}, files=files)

    def _first_order_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for name, experiment in self.table_experiments(spec).items():
            for state, direction in product(spec["states"], spec["directions"]):
                names = {"experiment": name, "state": state, "direction": direction}
                changes = self.paths.loss_changes(
                    spec["name"], **experiment, state=state, direction=direction
                )
                yield Part(names, files={"changes": [changes]})

    def _treatment_parts(self, spec: Mapping[str, Any]) -> Iterator[Part]:
        for experiment, found in groupby(self.arms(spec["name"]), lambda arm: arm.experiment):
            arms, finetune = list(found), spec["finetune"]
            rows = {"data": [self.paths.dataset(arms[0].dataset)]}
            for name, subject in self.reference_subjects(finetune, arms[0]).items():
                trained = rows["data"] if any(subject.runs) else []
                yield self._treatment_part(
                    spec, {"experiment": experiment, "treatment": name}, subject,
                    {"share": 0.0} if trained else {}, rows | {"rows": trained},
                )  # fmt: skip
            for name, arm in self.treated_arms(spec, arms):
                entry = self.config["treatments"][name]
                names = {"experiment": experiment, "treatment": name}
                names |= {"method": arm.method} if entry["kind"] in BY_RISK else {}
                treated = self.paths.treated(arm.model, arm.dataset, arm.method, name)
                yield self._treatment_part(
                    spec, names, self.treated_subject(finetune, arm, name),
                    {"share": entry["share"]} if "share" in entry else {},
                    rows | {"rows": [treated]},
                )  # fmt: skip

    def _treatment_part(
        self,
        spec: Mapping[str, Any],
        names: Mapping[str, str],
        subject: Subject,
        options: Mapping[str, Any],
        files: Mapping[str, list[str]],
    ) -> Part:
        """A row of a table of treatments, with what was measured of its models."""
        files = {**files, **self.curve(subject, spec["benchmark"])}
        if spec["heldout"] is not None:
            files["losses"] = [
                self.paths.row_losses(subject.model, subject.name, spec["heldout"], part)
                for part in subject.part_names()
            ]
        if spec["exact"] is not None:
            benchmark = self.benchmark(subject.model, spec["exact"])
            files["responses"] = self.responses(subject, benchmark)
            files["reference"] = [self.paths.benchmark(benchmark)]
        return Part(names, options, files)

    def marked(self, spec: Mapping[str, Any], model: str, curve: tuple) -> list[str]:
        """Those of a drawn table's `states` that lie on a curve (`config.curve_of`)."""
        return [
            self.paths.state(model, state)
            for state in spec.get("states", [])
            if curve_of(self.entry("states", state, model)) == curve
        ]

    def score_unit(self, model: str) -> str:
        """The unit of a model's Safety Scores, which its judge gives."""
        unit = JUDGES[self.config["judges"][self.judge(model, "safety_score")]["kind"]].unit
        assert unit is not None
        return unit

    def curve(self, subject: Subject, role: str) -> dict[str, list[str]]:
        """Judgements of a subject on a benchmark, by measure."""
        benchmark = self.benchmark(subject.model, role)
        return {
            measure: self.judgements(subject, benchmark, self.judge(subject.model, measure))
            for measure in MEASURES
        }

    def resource(self, kind: str, name: str, model: str) -> int:
        """A resource of the jobs of a kind (`train`, `infer`) for a model."""
        return for_model(self.config["resources"][kind], model)[name]

    def gpu_model(self, kind: str, model: str) -> str:
        """What a cluster calls the GPUs of these jobs; empty where any will do."""
        return for_model(self.config["resources"][kind], model).get("gpu_model", "")

    @property
    def names_gpu_models(self) -> bool:
        """Whether any job asks for GPUs by their name."""
        kinds = self.config["resources"].values()
        entries = [e for kind in kinds for e in (kind, *kind.get("per_model", {}).values())]
        return any("gpu_model" in entry for entry in entries)


def is_pinned(state: Mapping[str, Any]) -> bool:
    """Whether an entry of `states` names the state itself, rather than how to search it."""
    return "step" in state or "alpha" in state


def listed_name(spec: Mapping[str, Any], key: str, name: str) -> dict[str, str]:
    """A name of a table's rows, where the table has a list under its key."""
    return {key: name} if isinstance(spec[key], list) else {}


def chunks(items: Sequence, size: int) -> list[list]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def subject(model: str, name: str, parts: Sequence[Mapping], runs: Sequence[list[str]]) -> Subject:
    return Subject(model, name, tuple(parts), tuple(tuple(part) for part in runs))


def parts_with(subject: Subject, wanted: list[float] | None) -> list[str]:
    """Names of the parts that hold one of the wanted alphas; of all parts for None."""
    return [
        name
        for name, part in zip(subject.part_names(), subject.parts, strict=True)
        if wanted is None or set(part["alphas"]) & set(wanted)
    ]
