"""The audit: which labels are wrong, what repeats, what does not belong, what can go."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import raygrad
from raygrad.config import ScoreConfig, StudyConfig
from raygrad.config.auditing import AuditConfig
from raygrad.data.file_names import file_names, folder_of
from raygrad.data.index import Index, read_index
from raygrad.data.reading import rows_of_keys
from raygrad.errors import ConfigError
from raygrad.pipeline.audit_beside import Beside, known_of_run
from raygrad.pipeline.audit_checking import check_kept
from raygrad.pipeline.audit_findings import (
    find_repeats,
    keep_tables,
    label_table,
    outlier_table,
    repeat_table,
)
from raygrad.pipeline.audit_judging import judge, own_code
from raygrad.pipeline.audit_looking import LOOK, Network, Seen, look
from raygrad.pipeline.noticing import code_of, refuse_changed_shards, tell_of_older_results
from raygrad.pipeline.score_inputs import own_network
from raygrad.pipeline.stages import facts_of, facts_of_data, origin_facts
from raygrad.runs.audit_tables import write_audit
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import settle_rejects
from raygrad.scoring.numerics import device_name
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_marker, write_marker
from raygrad.training.fold_training import device_here
from raygrad.training.models import check_network
from raygrad.training.outside import weights_digest
from raygrad.training.pretrained import PRETRAINED, published

log = logging.getLogger("raygrad")


def audit(config: StudyConfig, options: AuditConfig, redo: bool = False) -> dict[str, Any]:
    """Audits the data of a run; returns what it came to, as `summary.json` holds it.

    Every example of all splits is looked at and judged; what is kept and dropped is of the training
    split. An audit that is complete with these options is left as it is; with others it is done
    again, of which the looks and trainings that did not change are kept.

    Args:
        config: The run; its data are prepared.
        options: How, and what is kept.
        redo: Do it again, looks and trainings too, where it is complete.

    Raises:
        ConfigError: The network, its weights and the data do not fit.
        DataError: No image can be decoded.
        TooManyRejectsError: More images cannot be decoded than is accepted.
    """
    layout = RunLayout(config.run)
    prepared = facts_of(layout, "prepare")
    refuse_changed_shards(config)
    network = options.network or config.train.network
    check_network(network)
    shown = _shown(options, network, facts_of_data(layout))
    weights = "" if shown is None else weights_digest(shown.source.build())
    beside, code = known_of_run(config), code_of(network)
    inputs = digest(
        {"data": prepared["digest"], **vars(options), "network": network, "weights": weights,
         "code": code, "beside": beside.digest}
    )  # fmt: skip
    marker = None if redo else read_marker(layout.marker("audit"))
    if marker is not None and marker["inputs_digest"] == inputs and _is_whole(layout):
        log.info("audit: complete, skipped")
        tell_of_older_results("audit", marker)
        return marker
    _refuse_unused(options)
    if redo:
        files.remove(layout.marker("audit"))
        files.remove(layout.audit)
    start_s = time.monotonic()
    with recorded(layout.journal, "audit"):
        device = device_here(options.device)
        log.info("audit: starts, in this process on %s (%s)", device.type, device_name(device))
        # Without a checkpoint no network looks, so that its code changes nothing of what is seen.
        own = [] if shown is None else own_code(network)
        said = digest([prepared["digest"], weights, shown and shown.preprocess, LOOK, *own])
        facts = _audit(config, options, network, shown, said[:12], beside)
        origin = origin_facts("audit", code)
        write_marker(layout.marker("audit"), inputs, **facts, **origin, digest=inputs)
    log.info("audit: complete in %.1f s", time.monotonic() - start_s)
    return facts


def _refuse_unused(options: AuditConfig) -> None:
    """Refuses settings of a checkpoint without one, and of trainings where there are none."""
    for name in ("num_classes", "mean", "std") if options.checkpoint is None else ():
        if (value := getattr(options, name)) != getattr(AuditConfig, name):
            raise ConfigError(
                f"{name} must be of a checkpoint, got {value} without. Give --checkpoint, or leave "
                "it."
            )
    if options.checkpoint is not None and options.epochs != AuditConfig.epochs:
        raise ConfigError(
            f"epochs must be of networks that an audit trains, got {options.epochs} with the "
            f"checkpoint {options.checkpoint}, to whose features heads are fitted. Leave it."
        )


def _is_whole(layout: RunLayout) -> bool:
    return all(
        files.exists(files.join(layout.audit, name))
        for name in ("summary.json", "labels.parquet", "keep.parquet", "drop.parquet")
    )


def _shown(options: AuditConfig, network: str, facts: dict[str, Any]) -> Network | None:
    """Returns the network of the checkpoint with how it is shown images; None without one."""
    if options.checkpoint is None:
        return None
    if options.checkpoint == PRETRAINED:
        options = _as_published(options, network, facts)
    config = ScoreConfig(
        network=network,
        checkpoint=(str(options.checkpoint),),
        num_classes=options.num_classes,
        image_size=options.image_size or ScoreConfig.image_size,
        mean=options.mean,
        std=options.std,
    )
    (source,), preprocess = own_network(config, network, facts)
    if options.checkpoint == PRETRAINED:
        source = replace(source, checkpoint_url=PRETRAINED)
    return Network(source, preprocess, options.device)


def _as_published(options: AuditConfig, network: str, facts: dict[str, Any]) -> AuditConfig:
    """Returns options with classes, size, mean and deviation of the network's published weights."""
    known = published(network)
    given = options.num_classes, options.mean, options.std
    if given != (None, AuditConfig.mean, AuditConfig.std) or facts["channels"] != len(known.mean):
        raise ConfigError(
            f"pretrained weights must be shown images of {len(known.mean)} channels by their own "
            f"mean and std, got {facts['channels']} channels, num_classes, mean and std {given}. "
            "Leave those flags, or give a file: --checkpoint FILE."
        )
    side = options.image_size or known.image_size
    log.info("audit: features of the published weights %s, at %d pixels", known.name, side)
    return replace(
        options,
        num_classes=known.num_classes,
        image_size=side,
        mean=known.mean,
        std=known.std,
    )


def _audit(
    config: StudyConfig,
    options: AuditConfig,
    network: str,
    shown: Network | None,
    said: str,
    beside: Beside,
) -> dict[str, Any]:
    layout = RunLayout(config.run)
    index, data = read_index(layout.data), facts_of_data(layout)
    names, channels = list(data["classes"]), int(data["channels"])
    if len(names) < 2:
        raise ConfigError(
            f"an audit must have two classes to tell apart, got {names}. Name the labels: --labels."
        )
    steps = files.join(layout.audit, "steps")
    seen = look(index, channels, shown, files.join(steps, f"look-{said}"))
    settle_rejects(
        "audit", layout.audit, seen.rejects, seen.rows.num_rows, config.data.max_reject_share
    )
    repeats = find_repeats(seen)
    for note in repeats.notes:
        log.info("audit: near copies: %s", note)
    judged = judge(options, network, index, seen, repeats.groups, len(names), channels, steps)
    facts = _facts(index, seen, folder_of(config.data))
    known = beside.columns(facts["key"])
    labels, estimate = label_table(facts, judged, names, known, options.ranking)
    found = outlier_table(facts, seen, judged)
    hashes = seen.rows["key_hash"].to_numpy()
    keep, drop, rule = keep_tables(options, facts, labels, found, repeats, judged, hashes)
    repeated = repeat_table(facts, repeats, names)
    tables = {
        "labels": labels,
        "repeats": repeated,
        "outliers": found,
        "keep": keep,
        "drop": drop,
    }
    summary = {
        **estimate,
        **_repeat_counts(repeated),
        **_counts(tables, seen),
        "classes": names,
        "how": judged.how,
        "near": list(repeats.notes),
        "rule": rule,
        "options": vars(options),
        "raygrad": raygrad.__version__,
    }
    if options.check:
        stays = pc.is_in(seen.rows["key"], value_set=keep["key"].combine_chunks()).to_numpy()
        checked = check_kept(
            options, network, index, seen, repeats.groups, stays, len(names), channels, steps
        )
        tables["check"] = checked.table()
        summary["check"] = checked.summary()
    write_audit(layout.audit, tables, summary)
    return {name: value for name, value in summary.items() if name not in ("joint", "classes")}


def _facts(index: Index, seen: Seen, folder: str | None) -> pa.Table:
    """Returns key, file, shard, split and label of each example that was seen, in its order."""
    rows = rows_of_keys(index, seen.rows["key"].to_pylist())
    return pa.table(
        {
            "key": seen.rows["key"],
            "file": pa.array(file_names(index, rows, folder), pa.string()),
            "shard": seen.rows["shard"],
            "split": seen.rows["split"],
            "label": seen.rows["label"],
        }
    ).combine_chunks()


def _counts(tables: Mapping[str, pa.Table], seen: Seen) -> dict[str, int]:
    return {
        "num_examples": tables["labels"].num_rows,
        "rejected": len(seen.rejects),
        "num_odd": pc.sum(pc.not_equal(tables["outliers"]["reason"], "")).as_py() or 0,
        "num_kept": tables["keep"].num_rows,
        "num_dropped": tables["drop"].num_rows,
    }


def _repeat_counts(repeated: pa.Table) -> dict[str, int]:
    groups, labels, splits = (
        repeated[name].to_pylist() for name in ("group", "across_labels", "across_splits")
    )
    return {
        "num_groups": len(set(groups)),
        "num_repeated": len(groups),
        "num_across_labels": len({g for g, of in zip(groups, labels, strict=True) if of}),
        "num_across_splits": len({g for g, of in zip(groups, splits, strict=True) if of}),
    }
