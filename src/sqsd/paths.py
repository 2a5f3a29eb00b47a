"""Where every result lies: the one place that builds a path (a wildcard may stand for a name)."""

from dataclasses import dataclass

# What every path segment that comes from the configuration looks like.
NAME = r"[a-z0-9]+(-[a-z0-9.]+)*"


@dataclass(frozen=True)
class Paths:
    """Paths of one run, relative to the working directory."""

    run: str

    @property
    def root(self) -> str:
        return f"results/{self.run}"

    @property
    def config(self) -> str:
        return f"{self.root}/config.yaml"

    @property
    def planned(self) -> dict[str, str]:
        """What is said of a run before it: the files by format."""
        return {end: f"{self.root}/plan.{end}" for end in ("parquet", "md")}

    @property
    def page(self) -> str:
        """The run on one page."""
        return f"{self.root}/page.html"

    def log(self, rule: str, place: str = "") -> str:
        return f"{self.root}/logs/{rule}{place and '/'}{place}.log"

    def times(self, rule: str, place: str) -> str:
        return f"{self.root}/times/{rule}/{place}.tsv"

    def resume(self, kind: str, place: str) -> str:
        """What a killed or repeated training goes on from; may be deleted between runs."""
        return f"{self.root}/resume/{kind}/{place}"

    def dataset(self, dataset: str) -> str:
        return f"{self.root}/data/{dataset}.parquet"

    def preferences(self, preferences: str) -> str:
        return f"{self.root}/preferences/{preferences}.parquet"

    def benchmark(self, benchmark: str) -> str:
        return f"{self.root}/benchmarks/{benchmark}.parquet"

    def pretrained(self, model: str) -> str:
        return f"{self.root}/pretrained/{model}"

    def model(self, model: str) -> str:
        return f"{self.root}/models/{model}"

    def direction(self, model: str, direction: str) -> str:
        return f"{self.root}/directions/{model}/{direction}"

    def pilot(self, model: str, pilot: str) -> str:
        return f"{self.root}/pilots/{model}/{pilot}"

    def trajectory(self, model: str, pilot: str, direction: str) -> str:
        return f"{self.root}/trajectories/{model}/{pilot}/{direction}.parquet"

    def checkpoint_ranking(self, model: str, pilot: str, direction: str) -> str:
        return f"{self.root}/sensitivity/{model}/checkpoints/{pilot}/{direction}.parquet"

    def alpha_ranking(self, model: str, subject: str) -> str:
        return f"{self.root}/sensitivity/{model}/alphas/{subject}.parquet"

    def state(self, model: str, state: str) -> str:
        return f"{self.root}/states/{model}/{state}.json"

    def trust(self, model: str, method: str) -> str:
        """The checks of what a method's scores rest on."""
        return f"{self.root}/trust/{model}/{method}.json"

    def checked(self, model: str, state: str, direction: str) -> str:
        """Is there, and empty, once the methods that read these gradients are checked."""
        return f"{self.root}/trust/{model}/{state}/{direction}.checked"

    def samples(self, model: str, dataset: str) -> str:
        return f"{self.root}/samples/{model}/{dataset}.parquet"

    def shard(
        self, model: str, dataset: str, state: str, direction: str, shard: str, table: str
    ) -> str:
        """table: `samples` or `modules`."""
        folder = f"{self.root}/gradients/{model}/{dataset}/{state}/{direction}"
        return f"{folder}/{shard}-{table}.parquet"

    def layer(self, model: str, layer: str) -> str:
        return f"{self.root}/layers/{model}/{layer}.json"

    def layer_search(self, model: str, layer: str) -> str:
        return f"{self.root}/layers/{model}/{layer}.parquet"

    def hidden_states(self, model: str, dataset: str, layer: str, token: str, shard: str) -> str:
        """token: from a row's end, -1 its last."""
        return f"{self.root}/hidden-states/{model}/{dataset}/{layer}/token{token}/{shard}.parquet"

    def anchor(self, model: str, anchor: str) -> str:
        return f"{self.root}/anchors/{model}/{anchor}.safetensors"

    def gradients(self, model: str, dataset: str, reading: str, shard: str, table: str) -> str:
        """Of all parameters; table: `samples` or `products`."""
        return f"{self.root}/full-gradients/{model}/{dataset}/{reading}/{shard}-{table}.parquet"

    def token_losses(self, model: str, dataset: str) -> str:
        return f"{self.root}/token-losses/{model}/{dataset}.parquet"

    def loss_changes(self, table: str, model: str, dataset: str, state: str, direction: str) -> str:
        """table: the one that says of how many rows, and how large the steps are."""
        return f"{self.root}/loss-changes/{table}/{model}/{dataset}/{state}/{direction}.parquet"

    def row_judgements(self, judge: str, dataset: str, shard: str) -> str:
        return f"{self.root}/row-judgements/{judge}/{dataset}/{shard}.parquet"

    def scores(self, model: str, dataset: str, method: str) -> str:
        return f"{self.root}/scores/{model}/{dataset}/{method}.parquet"

    def subset(self, model: str, dataset: str, method: str, window: str) -> str:
        return f"{self.root}/subsets/{model}/{dataset}/{method}/{window}.parquet"

    def curated(self, curation: str, model: str, dataset: str) -> str:
        """Folder of a data set without its riskiest rows."""
        return f"{self.root}/curated/{curation}/{model}/{dataset}"

    def explained(self, model: str, dataset: str, method: str) -> dict[str, str]:
        """What says why rows have the score that they have, by content."""
        folder = f"{self.root}/explained/{model}/{dataset}/{method}"
        names = ("tokens.parquet", "modules.parquet", "nearest.parquet", "page.html")
        return {name.partition(".")[0]: f"{folder}/{name}" for name in names}

    def repeats(self, dataset: str) -> str:
        return f"{self.root}/repeats/{dataset}.parquet"

    def treated(self, model: str, dataset: str, method: str, treatment: str) -> str:
        """Rows to fine-tune on; method: whose scores a treatment goes by, `all-rows` for none."""
        return f"{self.root}/treated/{model}/{dataset}/{method}/{treatment}.parquet"

    def groups(self, model: str, dataset: str, groups: str) -> str:
        return f"{self.root}/groups/{model}/{dataset}/{groups}.parquet"

    def group_runs(self, finetune: str, model: str, dataset: str, groups: str, seed: str) -> str:
        """Folder of the models fine-tuned on groups, each in a folder of its group's name."""
        return f"{self.root}/group-runs/{finetune}/{model}/{dataset}/{groups}/seed-{seed}"

    def finetune(
        self, finetune: str, model: str, dataset: str, method: str, seed: str, window: str
    ) -> str:
        """model: the one whose scores made the subset; the target trained on it may be another.

        window: of a subset, or a treatment's name.
        """
        arm = f"{finetune}/{model}/{dataset}/{method}"
        return f"{self.root}/finetunes/{arm}/seed-{seed}/{window}"

    def subject_states(self, model: str, subject: str, part: str) -> str:
        return f"{self.root}/evaluations/{model}/{subject}/states/{part}.json"

    def responses(self, model: str, subject: str, benchmark: str, part: str) -> str:
        return f"{self.root}/evaluations/{model}/{subject}/{benchmark}/responses/{part}.parquet"

    def judgements(self, model: str, subject: str, benchmark: str, judge: str, part: str) -> str:
        folder = f"{self.root}/evaluations/{model}/{subject}/{benchmark}"
        return f"{folder}/judgements/{judge}/{part}.parquet"

    def row_losses(self, model: str, subject: str, dataset: str, part: str) -> str:
        return f"{self.root}/row-losses/{model}/{subject}/{dataset}/{part}.parquet"

    def table(self, table: str) -> dict[str, str]:
        """The files of a table by format."""
        return {end: f"{self.root}/tables/{table}.{end}" for end in ("parquet", "csv", "md")}

    def figure(self, table: str) -> dict[str, str]:
        """The files of a table's drawing by format."""
        return {end: f"{self.root}/figures/{table}.{end}" for end in ("png", "svg")}
