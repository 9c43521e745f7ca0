"""A real study of the digits, computed once a session, and its report."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cases import make_tiny_config
from tests.report import study
from tests.report.no_pictures import no_pictures

MNIST_SAMPLE = Path(__file__).parent.parent / "fixtures" / "mnist"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """The run folder of two networks, two protocols and three seeds."""
    return study.write_run(tmp_path_factory.mktemp("study") / "digits")


@pytest.fixture(scope="session")
def report_url(run_folder, tmp_path_factory) -> str:
    """The report of that run, beside it."""
    from raygrad.report import write_report

    return write_report([str(run_folder)], str(tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="session")
def small_run_folder(tmp_path_factory) -> Path:
    """One network, one protocol: a run whose report is soon made."""
    folder = tmp_path_factory.mktemp("study") / "small"
    return study.write_run(folder, networks=("linear",), protocols=("equal_epochs",))


@pytest.fixture
def drawn_once():
    """Draws each figure of a report, but writes no picture, which is most of a report's time."""
    with no_pictures():
        yield


@pytest.fixture(scope="session")
def engines_digits(ray_session, tmp_path_factory) -> Path:
    """The run folder of a study of the digits, stage by stage by the engines: one network."""
    from raygrad import pipeline

    config = make_tiny_config(tmp_path_factory.mktemp("engines") / "digits")
    train = replace(config.train, probe_size=64, bound_epochs=(1, 3), bound_batches=10)
    pipeline.run(replace(config, train=train))
    return Path(config.run)


@pytest.fixture(scope="session")
def engines_mnist(ray_session, tmp_path_factory) -> Path:
    """The same of real images of MNIST: scores of two networks, two networks retrained."""
    from raygrad import config as c
    from raygrad import pipeline

    folder = tmp_path_factory.mktemp("engines") / "mnist"
    raw = folder / "files" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in MNIST_SAMPLE.glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    config = c.StudyConfig(
        run=str(folder / "run"),
        data=c.DataConfig(source="mnist", data_dir=str(folder / "files"), shard_bytes=800_000),
        train=c.TrainConfig(
            network="cnn",
            epochs=3,
            learning_rate=0.05,
            batch_size=64,
            lr_decay_epochs=(2,),
            probe_size=512,
            bound_epochs=(1, 3),
            bound_batches=10,
            dynamics=True,
            num_workers=1,
        ),
        score=c.ScoreConfig(columns=(study.COLUMN, "grad_l2_all", "loss", "el2n")),
        select=c.SelectConfig(keep_fractions=(0.05, 0.3, 1.0), seeds=(0, 1)),
        sweep=c.SweepConfig(
            networks=("linear", "mlp"), protocols=("equal_epochs", "equal_steps"), cpus_per_worker=1
        ),
    )
    other = replace(config, train=replace(config.train, network="mlp", dynamics=False))
    for stage in (pipeline.prepare, pipeline.train, pipeline.score):
        stage(other)
    pipeline.run(config)
    return folder / "run"
