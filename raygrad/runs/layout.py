"""Where everything stands in a run folder; the names are stable."""

from dataclasses import dataclass

from raygrad.storage import files


@dataclass(frozen=True)
class RunLayout:
    """The paths of a run folder, on local disk or S3."""

    url: str
    """The run folder; a local one is made absolute, since workers have folders of their own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", files.absolute(self.url))

    @property
    def config(self) -> str:
        """The resolved configuration, JSON."""
        return files.join(self.url, "config.json")

    @property
    def data(self) -> str:
        """The folder of the index, its rejects and, unless placed elsewhere, the shards."""
        return files.join(self.url, "data")

    @property
    def shards(self) -> str:
        """The folder of shards that raygrad wrote itself."""
        return files.join(self.url, "data", "shards")

    def train(self, network: str) -> str:
        """The folder of a trained network."""
        return files.join(self.url, "train", folder_name(network))

    def checkpoint(self, network: str) -> str:
        """The best epoch's checkpoint of a network."""
        return files.join(self.train(network), "best.pt")

    def kept_checkpoint(self, network: str, epoch: int) -> str:
        """The checkpoint of a network after an epoch that was to be kept, counted from 1."""
        return files.join(self.train(network), f"epoch-{epoch}.pt")

    def metrics(self, network: str) -> str:
        """What training a network came to, JSON."""
        return files.join(self.train(network), "metrics.json")

    def scores(self, network: str) -> str:
        """The folder of a network's score table."""
        return files.join(self.url, "scores", folder_name(network))

    def features(self, network: str) -> str:
        """The folder of a network's features, where they were made beside its scores."""
        return files.join(self.url, "features", folder_name(network))

    def subset(self, method: str, keep_fraction: float, seed: int) -> str:
        """The Parquet file of a subset."""
        return files.join(self.url, "subsets", f"{method}-{keep_fraction:g}-{seed}.parquet")

    @property
    def sweep(self) -> str:
        """The folder of a sweep."""
        return files.join(self.url, "sweep")

    @property
    def results(self) -> str:
        """The table of retraining results, Parquet, one row a trial."""
        return files.join(self.sweep, "results.parquet")

    @property
    def audit(self) -> str:
        """The folder of an audit's tables."""
        return files.join(self.url, "audit")

    @property
    def report(self) -> str:
        """The folder of figures and page."""
        return files.join(self.url, "report")

    @property
    def journal(self) -> str:
        """The folder of what was started when, and what ended it."""
        return files.join(self.url, "journal")

    @property
    def logs(self) -> str:
        """The folder of what other libraries had to say."""
        return files.join(self.url, "logs")

    def marker(self, stage: str) -> str:
        """The completion marker of a stage.

        One of a network like `timm/resnet18` stands where all do, unless an older raygrad wrote it
        into a folder of its own: there it stays.
        """
        stages = files.join(self.url, "stages")
        url = files.join(stages, f"{one_name(stage)}.json")
        older = files.join(stages, f"{stage}.json")
        return older if older != url and not files.exists(url) and files.exists(older) else url

    def marked(self) -> list[str]:
        """The stages that have a marker, sorted, each as `one_name` gives it."""
        names = json_names(files.join(self.url, "stages"))
        return sorted(one_name(name.removesuffix(".json")) for name in names)


def one_name(stage: str) -> str:
    """Returns the name of a stage as the name of one file, whatever its network is called."""
    return stage.replace("/", "-")


def json_names(url: str) -> list[str]:
    """Returns the names of the JSON files in a folder, and in the folders right inside it.

    An older raygrad wrote what is of a network like `timm/resnet18` into a folder below.

    Args:
        url: The folder; there need not be one.
    """
    names = []
    for name, is_folder in files.list_entries(url):
        if is_folder:
            below = files.list_files(files.join(url, name), ".json")
            names += [f"{name}/{one.rsplit('/', 1)[-1]}" for one in below]
        elif name.endswith(".json") and not name.startswith("."):
            names.append(name)
    return names


def folder_name(network: str) -> str:
    """Returns a network's name as a folder name: `module:callable` without its colon."""
    return network.replace(":", "-").replace("/", "-")
