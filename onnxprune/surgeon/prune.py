"""Lossy pruning from end to end: a model and calibration data in, a sparser or narrower model and a report out."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import onnx

from onnxprune.domain import Domain
from onnxprune.errors import InputError, Interrupted
from onnxprune.graph.cost import Cost, cost
from onnxprune.graph.files import Source, load, size_on_disk
from onnxprune.graph.kinds import ModelLike
from onnxprune.latency import Timing, measure
from onnxprune.pass_registry import select
from onnxprune.pipeline import Pipeline, Reduced
from onnxprune.protobuf import byte_size
from onnxprune.report import Report
from onnxprune.runtime import choose_provider
from onnxprune.samples import input_specs
from onnxprune.surgeon.calibration import CalibrationLike, calibration
from onnxprune.surgeon.latency_budget import LatencyBudget, latency_budget
from onnxprune.surgeon.memory import memory
from onnxprune.surgeon.methods import operated
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.outcome import Quality, compare, outputs
from onnxprune.surgeon.report import prune_report
from onnxprune.surgeon.sparse import made_dense, stored_sparse
from onnxprune.surgeon.writing import with_values
from onnxprune.validate import Validator

CLEANING = ("tidy", "remove_inactive", "remove_unused", "fold_constant", "merge_parallel")
"""Lossless passes that take out what pruning has emptied."""


@dataclass(frozen=True)
class PruneResult:
    """What :func:`prune` hands back.

    Attributes:
        model: The pruned model.
        report: What went, and how far the outputs moved.
        quality: Comparison with the dense model on held-out samples.
    """

    model: onnx.ModelProto
    report: Report
    quality: Quality

    def _repr_html_(self) -> str:
        """The report's summary, for notebooks."""
        return self.report._repr_html_()


def prune(model: ModelLike, data: CalibrationLike, **options: Any) -> PruneResult:
    """Remove weights or units that cancel one another, and refit the rest to the dense model. Changes the function.

    Args:
        model: Path, bytes or ModelProto; never changed.
        data: Calibration inputs: an .npz file with one array per input (first axis: samples; classes, if any, under
            ``labels``), a folder of such files, a mapping of arrays, or an iterable of mappings.
        **options: Fields of :class:`PruneOptions`: ``sparsity=0.9``, or ``structure="units", macs=0.5``.

    Returns:
        The result; nothing is written to disk.

    Raises:
        InputError: The model, the data or an option cannot be used.
        EnvironmentFailure: ONNX Runtime cannot run the model.
        Interrupted: ``stopped`` turned True before the first stage was finished.
    """
    known = [field.name for field in fields(PruneOptions)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(
                f"There is no option '{name}'.", hint=f"Did you mean '{near[0]}'?" if near else ", ".join(known)
            )
    return prune_source(load(model), data, PruneOptions(**options))


def prune_source(source: Source, data: CalibrationLike, options: PruneOptions) -> PruneResult:
    """:func:`prune` for a model that has been read already."""
    return _Operation(source, data, options).run()


class _Operation:
    def __init__(self, source: Source, data: CalibrationLike, options: PruneOptions) -> None:
        self.source, self.options = source, options
        self.begin = time.perf_counter()
        self.provider = choose_provider(options.provider)
        self.dense = made_dense(source.model)
        self.specs = input_specs(self.dense)
        options.progress("reading calibration data")
        self.data = calibration(data, self.specs, limit=options.samples, seed=options.seed)
        self.fit, self.held = self.data.split(options.seed)
        self.shapes = {name: (1, *values.shape[1:]) for name, values in self.data.inputs.items()}
        self.feeds = {name: values[:1] for name, values in self.data.inputs.items()}

    def run(self) -> PruneResult:
        options = self.options
        options.progress("running the dense model")
        dense = outputs(self.source.model, self.held, self.provider, options.threads)
        compare(dense, dense, self.held.labels, classify=options.classify, metric=options.metric)  # early, if it fails
        # The published methods look at the weights as they were trained, not multiplied by scales folded into them.
        tidied = self._cleaned(self.dense, only=("tidy",)) if options.method == "surgeon" else Reduced(self.dense)
        used = memory(tidied.model, self.data, self.fit, options.keep)
        options.progress(str(used))
        budget = self._latency_budget(tidied.model) if options.latency is not None else None
        asked = options if budget is None else replace(options, latency=None, macs=budget.macs)
        done = operated(tidied.model, self.fit, self.held, asked, self.provider)
        if not done.share:
            raise Interrupted("stopped before the first stage was finished; nothing was written.")
        options.progress("removing what is empty")
        # fewer units would shift the groups of a pattern in the layers that read them
        cleaning = CLEANING if options.pattern is None else ("tidy",)
        final = self._cleaned(with_values(tidied.model, done.values), only=cleaning)
        options.progress("comparing with the dense model")
        pruned = outputs(final.model, self.held, self.provider, options.threads)
        quality = compare(dense, pruned, self.held.labels, classify=options.classify, metric=options.metric)
        written, sparse = stored_sparse(final.model, self.feeds, self.provider) if options.sparse else (final.model, ())
        models = {"before": self.dense, "tidied": tidied.model, "after": final.model}
        timing = self._timing({**models, "after": written})
        report = prune_report(
            source=self.source,
            models=models,
            files={"before": self.source.model, "tidied": tidied.model, "after": written},
            sparse=sparse,
            costs=self._costs(models, written, timing),
            latencies=timing.times,
            operated=done,
            final=final,
            quality=quality,
            options=options,
            latency=budget,
            memory=used,
            labelled=self.held.labels is not None,
            provider=self.provider,
            seconds=time.perf_counter() - self.begin,
        )
        return PruneResult(written, report, quality)

    def _latency_budget(self, tidied: onnx.ModelProto) -> LatencyBudget:
        return latency_budget(
            self.source.model,
            tidied,
            self.fit,
            self.feeds,
            self.options,
            self.provider,
            lambda model: self._cleaned(model, only=CLEANING).model,
        )

    def _costs(
        self, models: Mapping[str, onnx.ModelProto], written: onnx.ModelProto, timing: Timing
    ) -> dict[str, Cost]:
        costs = {name: cost(model, self.shapes) for name, model in models.items()}
        costs["before"].bytes = byte_size(self.source.model)
        for name, found in costs.items():
            found.latency_ms = timing.typical(name)
        if self.source.path is not None:
            costs["before"].bytes = size_on_disk(self.source)
        costs["after"].bytes = byte_size(written)
        # tidying keeps every multiply-add, but lets shape inference see more of them
        costs["before"].macs = max(costs["before"].macs, costs["tidied"].macs)
        return costs

    def _cleaned(self, model: onnx.ModelProto, only: tuple[str, ...]) -> Reduced:
        """Lossless passes, checked against the model they start from on calibration samples."""
        validator = Validator(
            model,
            Domain.everything(),
            data={name: values[:8] for name, values in self.data.inputs.items()},
            shapes=self.shapes,
            seed=self.options.seed,
            provider=self.provider,
        )
        pipeline = Pipeline(Domain.everything(), validator, self.options.progress)
        return pipeline.run(Reduced(model), select(only))

    def _timing(self, models: Mapping[str, onnx.ModelProto]) -> Timing:
        self.options.progress("measuring latency")
        return measure(
            models,
            self.feeds,
            provider=self.provider,
            threads=self.options.threads,
            custom_ops=(),
            stopped=self.options.stopped,
        )
