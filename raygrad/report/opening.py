"""What stands before the first scroll: the answer, the figure that carries it, the hardest ten."""

from collections.abc import Mapping, Sequence

from raygrad.report.answer import answer
from raygrad.report.comparing import comparisons
from raygrad.report.examples import hardest_first
from raygrad.report.figures.accuracy import accuracy_figure
from raygrad.report.figures.base import Drawn
from raygrad.report.figures.concentration import concentration_figure, concentration_sentence
from raygrad.report.figures.images import describe, strip
from raygrad.report.findings import Finding
from raygrad.report.markup import plain_heading
from raygrad.report.results import Panel
from raygrad.report.tables import Run
from raygrad.report.thumbnails import Thumbnail
from raygrad.report.wording import count, listed, percent, protocol_words, scope

TEN = 10


def main_panel(panels: Sequence[Panel], network: str | None) -> Panel | None:
    """The panel that stands for a run: its main network's under equal epochs, if there is one.

    Args:
        panels: All panels of the run.
        network: The network whose scores the sweep used most.
    """
    ranked = sorted(panels, key=lambda p: (p.network != network, p.protocol))
    return next(iter(ranked), None)


def question(runs: Sequence[Run], names: str) -> str:
    """What the page answers: of runs with a sweep what matters, of scores alone what is hard."""
    if any(run.results is not None for run in runs):
        return f"Which training examples matter in {names}?"
    if any(run.scores for run in runs):
        return f"What is hard in {names}, and what looks wrong?"
    return f"How did training go in {names}?"


def lead(run: Run, panels: Sequence[Panel], found: Sequence[Finding]) -> list[str]:
    """The answer in a sentence: who leads where, of the network that stands for the run.

    Of several protocols each has its sentence, as equals. Where nothing can be compared it is the
    first finding, and without a sweep what the scores say.
    """
    main = main_panel(panels, run.main_network)
    if main is None:
        sentence = scores_sentence(run)
        return [sentence] if sentence else training_sentences(run)
    mine = [p for p in panels if p.network == main.network]
    sentences = []
    for panel in mine:
        sentence = answer(panel, comparisons(panel))
        if sentence is None:
            place = (panel.network, panel.protocol)
            sentences += [f.text for f in found if (f.network, f.protocol) == place][:1]
            continue
        where = [protocol_words(panel.protocol)] if len(mine) > 1 else []
        where += [panel.network] if len(panels) > len(mine) else []
        where += [scope(*panel.score_network_counts)] if not sentences else []
        words = [f"{word[0].lower()}{word[1:]}" for word in where]
        # A protocol or what it holds for comes first, so that no network's name is changed.
        joined = ", ".join(words if len(mine) > 1 else words[::-1])
        sentences.append(f"{joined[:1].upper()}{joined[1:]}: {sentence}" if joined else sentence)
    return sentences


def scores_sentence(run: Run) -> str | None:
    """What one network's scores say of the data, and that another network may say otherwise."""
    network, column = run.main_network, run.score_column
    if network is None or column is None or column not in run.scores[network].columns:
        return None
    scores = run.scores[network]
    parts = [concentration_sentence(scores.values(column), column)]
    if scores.predictions is not None:
        wrong = int(scores.contradicted.sum())
        parts.append(
            f"{network} contradicts the label of {count(wrong)} "
            f"({percent(wrong / len(scores.labels))})"
        )
    others = len([s for s in run.scores.values() if column in s.columns]) - 1
    given = (
        "One scoring network: another may rank them otherwise"
        if others < 1
        else f"By {network}; how far {count(others)} more agree stands below"
    )
    return f"{'; '.join(parts)}. {given}."


def training_sentences(run: Run) -> list[str]:
    """What training came to, a sentence a network: all there is before anything is scored."""
    sentences = []
    for network, metrics in run.metrics.items():
        accuracies = [
            f"{percent(float(metrics[f'{split}_accuracy']))} of its {split} examples"
            for split in ("test", "val")
            if metrics.get(f"{split}_accuracy") is not None
        ]
        if accuracies:
            at = f", at epoch {metrics['best_epoch']} of {metrics['epochs']}"
            known = metrics.get("best_epoch") and metrics.get("epochs")
            sentences.append(f"{network} is right on {listed(accuracies)}{at if known else ''}.")
    return sentences


def facts(run: Run, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    """Names and values of the run's key figures."""
    out = []
    metrics = run.metrics.get(run.main_network or "") or next(iter(run.metrics.values()), {})
    for name, title in (
        ("num_train", "training examples"),
        ("num_val", "validation"),
        ("num_test", "test"),
    ):
        if metrics.get(name):
            out.append((title, count(int(metrics[name]))))
    scores = run.scores.get(run.main_network or "")
    if not out and scores is not None:
        out.append(("scored examples", count(len(scores.labels))))
    if run.num_classes:
        out.append(("classes", count(run.num_classes)))
    main = main_panel(panels, run.main_network)
    if main is not None and main.full is not None:
        out.append(("accuracy on all data", percent(main.full.interval.mean)))
    if run.results is not None:
        out.append(("retrainings", count(run.results.num_rows)))
    return out


def opening(
    run: Run, panels: Sequence[Panel], thumbnails: Mapping[str, Thumbnail]
) -> list[Drawn | str]:
    """The figure that carries the answer, and the ten hardest examples.

    Args:
        run: The run.
        panels: The curves of its sweep; without any, the figure is of the scores.
        thumbnails: Pictures by key.
    """
    parts: list[Drawn | str] = []
    network, column = run.main_network, run.score_column
    main = main_panel(panels, run.main_network)
    if main is not None:
        # Protocols are equals; other networks' curves stand below.
        mine = [p for p in panels if p.network == main.network]
        mine.sort(key=lambda p: p is not main)
        # The only panel is the whole figure, which then stands here and nowhere else.
        name = "accuracy" if len(panels) == 1 else "opening"
        parts.append(accuracy_figure(mine, name=name, opens=True))
    elif network is not None and column is not None:
        parts.append(concentration_figure(run, network, column, opens=True))
    if network is not None and column is not None and column in run.scores[network].columns:
        parts.append(_hardest(run, network, column, thumbnails))
    return [part for part in parts if part]


def _hardest(run: Run, network: str, column: str, thumbnails: Mapping[str, Thumbnail]) -> str:
    """The ten hardest of the main network as a strip, or nothing where no image could be read."""
    scores = run.scores[network]
    positions = hardest_first(scores.values(column))[:TEN]
    examples = describe(run, scores, column, [("hardest", positions)])
    if not any(e.key in thumbnails for e in examples):
        return ""
    number = "ten" if len(examples) == TEN else count(len(examples))
    title = f"The {number} hardest for {network}"
    return plain_heading(title) + strip(examples, thumbnails, "ten")
