"""The main job: a model in, a smaller and equal one out, with a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune import alignment
from onnxprune.certificate import ClaimStore, default_folder, store_key
from onnxprune.domain import Domain, parse_domain
from onnxprune.errors import InputError, ValidationError
from onnxprune.facts import Facts
from onnxprune.graph.cost import Cost, cost, macs
from onnxprune.graph.files import Source, fingerprint, load, size_on_disk
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import ChannelGroups
from onnxprune.graph.kinds import ModelLike, in_kind_of
from onnxprune.latency import Timing, measure
from onnxprune.mobile.sizes import with_fixed_sizes
from onnxprune.operators import Axis
from onnxprune.options import Options, from_keywords
from onnxprune.pass_api import Exactness, Pass
from onnxprune.pass_registry import select
from onnxprune.pipeline import Pipeline, Reduced, check_model
from onnxprune.protobuf import byte_size
from onnxprune.report.annotation import annotated
from onnxprune.report.build import Report, build_report
from onnxprune.runtime import choose_provider
from onnxprune.samples import input_specs
from onnxprune.stability import Plan, Proofs, unit_states
from onnxprune.stability.cascade import prove
from onnxprune.validate import Outcome, Validator
from onnxprune.witness import Observed, corner_feeds, observe

if TYPE_CHECKING:
    import onnx_ir

    from onnxprune.certificate.making import Made

DOMAIN_KEY = "onnxprune.domain."
LEAST = 60.0
"""Seconds of processor time that finding evidence for a certificate may take in any case."""
ALIKE = 1.08
"""Among variants whose latency is within this ratio of the fastest the smallest is taken."""


Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Result(Generic[Kind]):
    """What :func:`optimize` hands back.

    Attributes:
        model: The optimized model, or the original where nothing changed; of the kind that was given, a ModelProto
            for a path.
        report: What went and why the rest stayed.
        modified: False when the original is handed back as it was, byte for byte.
        source: The model as it was read.
        outcome: The last comparison with the original.
        certificate: What proves the result, where it was asked for; see :mod:`onnxprune.certificate`.
    """

    model: Kind
    report: Report
    modified: bool
    source: Source
    outcome: Outcome
    certificate: Made | None = None

    def _repr_html_(self) -> str:
        """The report's summary, for notebooks."""
        return self.report._repr_html_()


Domains = Domain | str | Sequence[str] | None


@overload
def optimize(model: bytes, domain: Domains = None, **options: Any) -> Result[bytes]: ...
@overload
def optimize(
    model: str | os.PathLike[str] | onnx.ModelProto, domain: Domains = None, **options: Any
) -> Result[onnx.ModelProto]: ...
@overload
def optimize(model: onnx_ir.Model, domain: Domains = None, **options: Any) -> Result[onnx_ir.Model]: ...
def optimize(model: ModelLike, domain: Domains = None, **options: Any) -> Result[Any]:
    """Remove everything from a model that provably does nothing on the domain.

    Args:
        model: Path, bytes, ModelProto or model of onnx-ir; never changed.
        domain: Where equivalence is promised: a Domain, or texts as on the command line (``"0:1"``,
            ``"x=0:1"``, ``"box.npz"``, ``"spec.vnnlib"``). Default: every finite input.
        **options: Fields of :class:`Options`.

    Returns:
        The result; nothing is written to disk.

    Raises:
        InputError: The model, the domain or an option cannot be used.
        EnvironmentFailure: ONNX Runtime cannot run the model.
        ValidationError: The final result failed validation (nothing is handed out).
    """
    result: Result[Any] = optimize_source(load(model), domain, from_keywords(options))
    same = isinstance(model, bytes) and not result.modified
    return replace(result, model=model if same else in_kind_of(model, result.model))


def optimize_source(source: Source, domain: Domains, options: Options) -> Result[onnx.ModelProto]:
    """:func:`optimize` for a model that has been read already."""
    return _Job(source, domain, options).run()


class _Job:
    def __init__(self, source: Source, domain: Domains, options: Options) -> None:
        self.source = source
        self.options = options
        self.provider = choose_provider(options.provider)
        chosen = [_with_rule(item, options.rule) for item in select(options.passes, options.skip)]
        self.approximate = [item for item in chosen if item.exactness is Exactness.APPROXIMATE]
        self.passes = [item for item in chosen if item.exactness is not Exactness.APPROXIMATE]
        if self.approximate and options.certificate:
            raise InputError(
                f"{self.approximate[0].name} changes the function; there is no certificate for that.",
                hint="Prune first, then optimize the result with a certificate.",
            )
        if options.fix_shape and options.certificate:
            raise InputError(
                "A certificate speaks of the model that was read, at all its sizes, and cannot go with --fix-shape.",
                hint="First write the sizes into a model (--fix-shape --passes tidy), then optimize that one.",
            )
        self.start = with_fixed_sizes(source.model, options.shapes) if options.fix_shape else source.model
        self.specs = input_specs(self.start)
        self.domain = _domain(domain, self.specs)
        self.notes: list[str] = []
        options.progress("running the original")
        self.validator = Validator(
            self.start,
            self.domain,
            data=options.data,
            shapes=options.shapes,
            tolerance=options.tolerance,
            seed=options.seed,
            provider=self.provider,
            custom_ops=options.custom_ops,
            work=float(macs(source.model, _default_shapes(self.specs, options.shapes))),
        )
        if self.start is not source.model:
            self.validator.rebase(source.model)
            self.notes.append("The sizes that --shape gives are fixed in the result; what is proved holds for these.")
        if options.data:
            found = self.domain.violations({name: np.asarray(values) for name, values in options.data.items()})
            self.notes += [str(violation) for violation in found]
            if self.validator.left_out:
                self.notes.append(f"{self.validator.left_out} samples outside the domain were left out of the check.")
        self.pipeline = Pipeline(
            self.domain, self.validator, options.progress, options.stopped, strict=_well_formed(source.model)
        )

    def run(self) -> Result[onnx.ModelProto]:
        tidied = self.pipeline.run(Reduced(self.start), [p for p in self.passes if p.name == "tidy"])
        tidied = self._approximated(tidied)
        self.proofs = self._prove(tidied.model)
        tidied.known = self.proofs.bounds
        self.baseline = Facts(Graph(tidied.model), self.domain, known=self.proofs.bounds)
        self.kept_nodes = self._kept_nodes()
        final, align, timing = self._reduce(tidied)
        modified = final.modified or self.start is not self.source.model
        outcome = Outcome(len(self.validator.feeds))
        if modified:
            final.model = self._with_metadata(final.model, align)
            if self.options.annotate:
                baseline, proofs = self.baseline, self.proofs
                layers = unit_states(baseline.graph, baseline.groups, proofs.bounds, proofs.switching)
                final.model = annotated(final.model, layers, final.kept)
            self.options.progress("validating the result")
            outcome = self.validator.check(final.model)
        made = self._certified(tidied.model, final.model) if self.options.certificate else None
        report = build_report(
            source=self.source,
            domain=self.domain,
            costs=self._costs(tidied.model, final.model, timing),
            latencies=timing.times,
            baseline=self.baseline,
            proofs=self.proofs,
            final=final,
            align=align,
            outcome=outcome,
            provider=self.provider,
            notes=self.notes,
        )
        return Result(final.model, report, modified, self.source, outcome, made)

    def _certified(self, tidied: onnx.ModelProto, final: onnx.ModelProto) -> Made:
        """The certificate of the result.

        Raises:
            ValidationError: Something that the rewrite used is not proved anew.
        """
        from onnxprune.certificate.making import Wanted, make  # noqa: PLC0415 # only where it is asked for
        from onnxprune.verify.reasons import Rejected  # noqa: PLC0415

        self.options.progress("making the certificate")
        wanted = Wanted(
            original=self.source.model,
            optimized=final,
            tidied=tidied,
            domain=self.domain,
            known=self.proofs.bounds,
            budget=max(LEAST, 3 * self.options.budget),
            trust=self.options.trust,
            stopped=self.options.stopped,
        )
        try:
            return make(wanted)
        except Rejected as error:
            raise ValidationError(
                f"No certificate: {error.what}.",
                hint="Without --certificate the result is handed out; it has passed every other check.",
            ) from error

    def _approximated(self, tidied: Reduced) -> Reduced:
        """Passes that change the function run once and before anything is proved; the rest is held to their result."""
        changed = self.pipeline.run(tidied, self.approximate) if self.approximate else tidied
        names = [p.name for p in self.approximate if changed.entries[p.name].modified]
        if names:
            self.notes.append(
                f"{' and '.join(names)} changed the function (APPROXIMATE); the check is against the model after that."
            )
        return changed

    def _prove(self, tidied: onnx.ModelProto) -> Proofs:
        """What can be proved of the tidied model within the budget."""
        options, graph = self.options, Graph(tidied)
        with self._store(tidied) as store:
            plan = Plan(
                method=options.method,
                budget=options.budget,
                trust=options.trust,
                solver=options.solver,
                solver_check=options.solver_check,
                jobs=options.jobs,
                executor=options.executor,
                seed=options.seed,
                stopped=options.stopped,
                progress=options.progress,
                store=store,
            )
            proofs = prove(graph, ChannelGroups(graph), self.domain, plan, partial(self._look, tidied))
        self.notes += [*proofs.notes, *store.notes]
        return proofs

    def _store(self, tidied: onnx.ModelProto) -> ClaimStore:
        folder = default_folder() if self.options.remember and self.domain.restricts else None
        return ClaimStore(folder, store_key(fingerprint(tidied), self.domain) if folder else "0")

    def _look(
        self, tidied: onnx.ModelProto, axes: Sequence[Axis], corners: Mapping[str, NDArray[np.float64]]
    ) -> dict[Axis, Observed]:
        """Values of pre-activations in runs on the samples and on guided corners."""
        if not axes or self.options.stopped():
            return {}
        batches = [feeds for feeds in self.validator.feeds if self.domain.contains(feeds)]
        if len(self.specs) == 1 and self.specs[0].name in corners:
            spec = self.specs[0]
            batches += corner_feeds(corners[spec.name], spec, self.domain, self.validator.shapes[spec.name])
        return observe(tidied, axes, batches, provider=self.provider, custom_ops=self.options.custom_ops)

    def _kept_nodes(self) -> dict[str, frozenset[int]]:
        """All units of the layers that ``--keep`` names."""
        layers = {label(units.node): len(units.components) for units in self.baseline.groups.units}
        unknown = [name for name in self.options.keep if name not in layers]
        if unknown:
            raise InputError(
                f"--keep names no layer with units: {', '.join(unknown)}.",
                hint="onnxprune inspect MODEL lists the layers.",
            )
        return {name: frozenset(range(layers[name])) for name in self.options.keep}

    def _reduce(self, tidied: Reduced) -> tuple[Reduced, int, Timing]:
        """Remove everything removable, choose the alignment, and apply the latency gate."""
        rest = self.passes  # tidy again, too: what is cut may leave equal initializers behind
        full = self.pipeline.run(tidied, rest, self.kept_nodes)
        touched = _touched(full)
        recorded = _recorded_align(self.source.model)
        measuring = self.options.align == "auto" and self.options.goal == "latency"
        if touched and measuring and recorded == alignment.REJECTED:
            self.notes.append("An earlier run found the smaller model slower; --goal size hands it out.")
            return tidied, recorded, Timing({})
        if touched and measuring and recorded is not None:
            again = self._aligned(tidied, rest, full, recorded)
            if not _touched(again):
                return again, recorded, Timing({})
        if self.options.goal == "size":
            multiple = 1 if self.options.align == "auto" else self.options.align
            return (self._aligned(tidied, rest, full, multiple) if touched else full), multiple, Timing({})
        if not full.modified or self.options.stopped():
            return full, 1, Timing({})
        multiples = alignment.MULTIPLES if self.options.align == "auto" else (self.options.align,)
        return self._fastest(tidied, rest, full, multiples if touched else ())

    def _aligned(self, tidied: Reduced, passes: Sequence[Any], full: Reduced, multiple: int) -> Reduced:
        if multiple == 1:
            return full
        protected = alignment.protect(self.baseline.groups, full.kept, multiple)
        merged = {
            name: protected.get(name, frozenset()) | self.kept_nodes.get(name, frozenset())
            for name in {*protected, *self.kept_nodes}
        }
        good = [p for p in passes if p.name not in full.entries or not full.entries[p.name].rolled_back]
        aligned = self.pipeline.unchecked().run(tidied, good, merged)
        for name, entry in full.entries.items():
            if entry.rolled_back:
                aligned.entries[name] = entry
        return aligned

    def _fastest(
        self, tidied: Reduced, passes: Sequence[Any], full: Reduced, multiples: Sequence[int]
    ) -> tuple[Reduced, int, Timing]:
        """Measure the variants against each other, the tidied and the original model."""
        variants: dict[int, Reduced] = {}
        for multiple in multiples:
            candidate = self._aligned(tidied, passes, full, multiple)
            same = [_sizes(self.baseline, other) for other in (tidied, *variants.values())]
            if _sizes(self.baseline, candidate) not in same:
                variants[multiple] = candidate
        models = {"before": self.source.model, "tidied": tidied.model}
        models |= {str(multiple): variant.model for multiple, variant in variants.items()}
        self.options.progress(f"measuring {len(models)} models")
        timing = measure(
            models,
            self.validator.feeds[0],
            provider=self.provider,
            threads=self.options.threads,
            custom_ops=self.options.custom_ops,
            stopped=self.options.stopped,
        )
        figures = {name: timing.typical(name) for name in models}
        best = self._choose(variants, {multiple: figures[str(multiple)] for multiple in variants})
        if best is not None and not any(timing.slower(str(best), other) for other in ("before", "tidied")):
            return variants[best], best, timing.staged(str(best))
        if best is not None:
            self.notes.append(
                f"The smaller model is slower ({figures[str(best)]:.3g} ms, tidied {figures['tidied']:.3g} ms) and was "
                "not used; --goal size hands it out."
            )
        if tidied.modified and (_same_nodes(tidied.model, self.source.model) or not timing.slower("tidied", "before")):
            return tidied, alignment.REJECTED if variants else 1, timing.staged("tidied")
        if tidied.modified:
            self.notes.append("Tidying made the model slower; the original is handed back.")
        return Reduced(self.start), 1, timing.staged("before")

    def _choose(self, variants: Mapping[int, Reduced], times: Mapping[int, float]) -> int | None:
        """The fastest variant; among those within noise of it the smallest, after a numeric check."""
        remaining = dict(times)
        while remaining:
            limit = min(remaining.values()) * ALIKE
            near = [m for m in remaining if remaining[m] <= limit]
            choice = min(near, key=lambda m: byte_size(variants[m].model))
            try:
                self.validator.check(variants[choice].model)
            except ValidationError as error:
                self.notes.append(f"Alignment {choice} was dropped: {error.what}")
                del remaining[choice]
                continue
            return choice
        return None

    def _with_metadata(self, model: onnx.ModelProto, align: int) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(model)
        entries = {p.key: p.value for p in model.metadata_props}
        for key, value in self.domain.to_metadata().items():
            before = entries.get(key)
            entries[key] = value if before in (None, value) else f"{before} and {value}"
        entries[alignment.METADATA_KEY] = str(align)
        del result.metadata_props[:]
        onnx.helper.set_model_props(result, entries)
        return result

    def _costs(self, tidied: onnx.ModelProto, final: onnx.ModelProto, timing: Timing) -> dict[str, Cost]:
        costs = {}
        for name, model in (("before", self.source.model), ("tidied", tidied), ("after", final)):
            costs[name] = cost(model, self.validator.shapes)
            costs[name].latency_ms = timing.typical(name) if name in timing.times else None
        if self.source.path is not None:
            costs["before"].bytes = size_on_disk(self.source)
        # tidying keeps every multiply-add, but lets shape inference see more of them
        costs["before"].macs = max(costs["before"].macs, costs["tidied"].macs)
        return costs


def _with_rule(item: Pass, rule: str) -> Pass:
    """A pass with this ``rule``, where it has one to choose and the default is still chosen."""
    choices = [field for field in fields(item) if field.name == "rule"]  # type: ignore[arg-type] # passes are dataclasses
    plain = bool(choices) and getattr(item, "rule", None) == choices[0].default
    return replace(item, rule=rule) if plain else item  # type: ignore[type-var]


def _sizes(baseline: Facts, reduced: Reduced) -> dict[str, int]:
    """Number of units per layer."""
    whole = {label(units.node): len(units.components) for units in baseline.groups.units}
    return whole | {name: len(kept) for name, kept in reduced.kept.items()}


def _same_nodes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two models run the same operators, so that neither can be slower."""
    return [node.op_type for node in one.graph.node] == [node.op_type for node in other.graph.node]


def _touched(reduced: Reduced) -> bool:
    """Whether anything but tidying happened."""
    return any(entry.modified for name, entry in reduced.entries.items() if name != "tidy")


def _domain(domain: Domain | str | Sequence[str] | None, specs: Sequence[Any]) -> Domain:
    if isinstance(domain, Domain):
        return domain
    parts = () if domain is None else (domain,) if isinstance(domain, str) else domain
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise InputError(
            f"domain cannot be {domain!r}.", hint='It is a text such as "0:1", several texts, or a Domain.'
        )
    texts = [domain] if isinstance(domain, str) else list(domain or ())
    return parse_domain(texts, specs) if texts else Domain.everything()


def _default_shapes(specs: Sequence[Any], given: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        s.name: given.get(s.name)
        or tuple(d if isinstance(d, int) else (1 if a == 0 else 64) for a, d in enumerate(s.shape or ()))
        for s in specs
    }


def _recorded_align(model: onnx.ModelProto) -> int | None:
    """The multiple an earlier run chose, REJECTED where it found the smaller model slower."""
    values = [p.value for p in model.metadata_props if p.key == alignment.METADATA_KEY]
    known = {str(multiple): multiple for multiple in (*alignment.MULTIPLES, alignment.REJECTED)}
    return known.get(values[0]) if values else None


def _well_formed(model: onnx.ModelProto) -> bool:
    """Whether the original itself passes ONNX's checker; ONNX Runtime runs many that do not."""
    try:
        check_model(model)
    except ValidationError:
        return False
    return True
