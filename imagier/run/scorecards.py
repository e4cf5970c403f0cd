"""Cards of the checkpoints of a run: what they score on the held-out set, and all that the numbers depend on."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.config.check import Component, Config
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureSet
from imagier.metrics.features import hash_file
from imagier.metrics.metric import AnyMetric
from imagier.recipe import Recipe
from imagier.run.build_scorer import OF_SETS_FEATURES, choose_metrics, name_metrics
from imagier.run.comparison import describe_program, list_warnings
from imagier.run.evaluation import Evaluator, check_has_held_out_set
from imagier.run.evaluation_request import (
    EvaluationRequest,
    check_writable,
    find_logdir,
    list_checkpoints,
    read_experiment_to_measure,
)
from imagier.run.experiment import ConfigSource, Experiment
from imagier.run.intervals import MOST_IMAGES_FOR_INTERVALS, measure_intervals
from imagier.run.nearest import NearestImages
from imagier.run.options import RunOptions
from imagier.run.process import open_runtime
from imagier.run.score_log import record_scores
from imagier.run.weights import load_weighted_recipe, load_weights
from imagier.train.card import Card, flatten, hash_protocol, read_card
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.disk import describe_error
from imagier.train.hooks import page
from imagier.train.hooks.evaluations import FOLDER, NEAREST
from imagier.train.image_rows import SetKey, list_lacking
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, REAL, Measured, Scorer

logger = logging.getLogger(__name__)

BROKEN = ("not-finite", "not-a-checkpoint", "damaged-checkpoint", "missing-checkpoint")
"""What is wrong with a single checkpoint, or removed by a run in training: of several, the others are measured."""

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def show_nothing(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """No progress display."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Scorecard:
    """A card, and its file."""

    card: Card
    path: Path | None
    """None if the checkpoint is in no folder of a run."""
    is_new: bool = True
    """False: it was there, of the same weights and protocol."""


def measure_checkpoints(
    config_or_logdir: ConfigSource | None,
    options: RunOptions,
    request: EvaluationRequest,
    *,
    overrides: Sequence[str] = (),
    progress: Progress = show_nothing,
    show: Callable[[Scorecard], None] = lambda card: None,
) -> list[Scorecard]:
    """The cards of checkpoints, by iteration, and then by weights. Each is written at once; those there are not redone.

    show: called with each of them, on the first rank. UserError for a mistake in any argument. Called on all ranks.
    """
    experiment, options = read_experiment_to_measure(config_or_logdir, options, request, overrides)
    check_has_held_out_set(experiment.config)
    paths = [None] if request.folder is None else list_checkpoints(request)
    logdir = find_logdir(options, request)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        with raise_on_all_ranks(runtime):
            if runtime.is_main and logdir is not None:
                check_writable(logdir)
        measurer = _Measurer(experiment, runtime, options, request, progress if runtime.is_main else show_nothing)
        cards: list[Scorecard] = []
        failed: list[UserError] = []
        for path in paths:
            of_one = options if path is None else dataclasses.replace(options, checkpoint=path)
            try:
                for scorecard in measurer.measure_all(load_weights(experiment, of_one)):
                    cards.append(scorecard)
                    if runtime.is_main:
                        show(scorecard)
            except UserError as error:
                if len(paths) == 1 or error.code not in BROKEN:
                    raise
                logger.warning(str(error))
                failed.append(error)
        if not cards:
            raise failed[-1]
        if logdir is not None:
            record_scores([each.card for each in cards], logdir, experiment.config, options, runtime)
        return cards


def _describe(component: Component, metric: AnyMetric) -> dict[str, Any]:
    """All that a metric's numbers depend on; of files, not where they are."""
    options = {name: value for name, value in component.options.items() if not name.endswith("_path")}
    return {"type": component.type, **options, **metric.describe()}


def _count_images(sets: Mapping[SetKey, FeatureSet]) -> int | dict[str, int]:
    """How many images there are, or how many of each domain if these are several."""
    counts = {domain: len(of) for (_, domain), of in sets.items()}
    return next(iter(counts.values()), 0) if len(counts) < 2 else counts


class _Measurer:
    """Measures one checkpoint after the other."""

    def __init__(
        self,
        experiment: Experiment,
        runtime: Runtime,
        options: RunOptions,
        request: EvaluationRequest,
        progress: Progress,
    ) -> None:
        self.config = experiment.config
        self.runtime = runtime
        self.logdir = find_logdir(options, request)
        self.seed = options.seed or 0
        self.request = request
        self.progress = progress
        self.evaluator: Evaluator
        self.protocol: Mapping[str, Any] = {}
        """Of all checkpoints; empty before the first one."""
        self.nearest: NearestImages | None = None
        """Of the training images; None before the first checkpoint, and where they are not here."""

    @property
    def scorer(self) -> Scorer:
        return self.evaluator.scorer

    def measure_all(self, found: FoundCheckpoint) -> Iterator[Scorecard]:
        """The cards of a checkpoint, of all weights that are wanted."""
        recipe, name = load_weighted_recipe(self.config, found, self.runtime)
        if not self.protocol:
            self._begin(recipe)
        sha256 = hash_file(found.path) if self.runtime.is_main else ""
        for weights in dict.fromkeys(name if wanted == "average" else wanted for wanted in self.request.weights):
            if weights != name:
                use_average = weights == "average"
                recipe, name = load_weighted_recipe(self.config, found, self.runtime, use_average=use_average)
            yield self._measure(recipe, found, weights, sha256)

    def _begin(self, recipe: Recipe) -> None:
        """Builds what is the same for all checkpoints, and looks at the real images.

        UserError: wrong data, too few for a metric, or no weights for a network that one uses.
        """
        wanted = self.request.metrics
        metrics = choose_metrics(self.config, self.request.features, self.runtime) if wanted is None else wanted
        built = [metric.build() for metric in metrics]
        self.evaluator = Evaluator(self.config, recipe, self.runtime, self.seed, built)
        kept = {metric.name: metric for metric in [*self.scorer.pairwise, *self.scorer.of_sets]}
        lacking = [metric.name for metric in built if metric.name not in kept]
        if (wanted is not None and lacking) or not kept:
            what = f"nothing that {', '.join(lacking) or 'any metric'} could measure: data.val lacks what it needs"
            advice = "choose metrics that compare sets of images, such as kd"
            raise UserError(what, where="metrics", advice=advice, code="nothing-to-measure")
        with self.progress("real images") as update:
            held_out_sha256, num_samples = self.evaluator.measure_real(recipe, update)
        for (features, _), of in (self.scorer.real or {}).items():
            for metric in self.scorer.of_sets:
                if metric.features == features:
                    metric.check_logits(of)
        self._leave_out_what_needs_more()
        named = list(zip(metrics, built)) if lacking != [metric.name for metric in built] else []
        named = named or [(only, only.build()) for only in name_metrics(["kd"], OF_SETS_FEATURES)]
        kept = {metric.name: metric for metric in [*self.scorer.pairwise, *self.scorer.of_sets]}
        described = {
            metric.name: _describe(component, kept[metric.name]) for component, metric in named if metric.name in kept
        }
        self.protocol = self._describe_protocol(described, held_out_sha256, num_samples)

    def _leave_out_what_needs_more(self) -> None:
        """Leaves out metrics for which there are too few real images. UserError if they were asked for, or are all."""
        lacking = list_lacking(self.scorer.real or {}, self.scorer.of_sets)
        few = [metric for metric, _ in lacking]
        if not few:
            return
        what = "; ".join(line for _, line in lacking)
        is_all = not self.scorer.pairwise and len(few) == len(self.scorer.of_sets)
        if self.request.metrics is not None or is_all:
            raise UserError(what, where="data.val", advice="add some, or leave it out", code="too-few-images")
        logger.info(f"left out: {what}")
        self.scorer.leave_out(few)

    def _measure(self, recipe: Recipe, found: FoundCheckpoint, weights: str, sha256: str) -> Scorecard:
        """The card of a checkpoint's weights. It is the same on all ranks; the first one writes it."""
        path = self._name_card(found, weights)
        kept = self.runtime.broadcast(_read_kept(path, self.protocol, sha256) if self.runtime.is_main else None)
        if kept is not None:
            logger.info(f"{found.path.name}, {weights} weights: {path} holds its scores already")
            return Scorecard(kept, path, is_new=False)
        with self.progress(f"{found.path.name}, {weights} weights") as update:
            measured = self.evaluator.measure(recipe, update)
        assert measured is not None
        if measured.num_broken:
            what = f"makes images that are not finite ({measured.num_broken} of {self.protocol['num_samples']})"
            raise UserError(what, where=found.path, advice="take an earlier checkpoint", code="not-finite")
        baselines = self.evaluator.score_baselines(recipe, measured)
        values = self.scorer.score({GENERATOR: measured})[GENERATOR]
        at_floor = self.scorer.measure_at_floor_sizes(measured.sets, self.seed)
        card: Card | None = None
        if self.runtime.is_main:
            card = self._make_card(found, weights, sha256, measured, values, baselines, at_floor)
        caption = self._draw_nearest(recipe, path)
        with raise_on_all_ranks(self.runtime):
            if card is not None:
                subject = {**card.subject, **({NEAREST: caption} if caption else {})}
                card = dataclasses.replace(card, subject=subject)
                if path is not None:
                    card.write(path)
        card = self.runtime.broadcast(card)
        assert card is not None
        self._update_page()
        return Scorecard(card, path)

    def _update_page(self) -> None:
        """Shows on the page of the run what was measured so far."""
        if self.logdir is None or not self.runtime.is_main:
            return
        try:
            page.write_page(self.logdir)
        except OSError as error:
            logger.warning(f"{self.logdir / page.NAME}: cannot be written: {describe_error(error)}")

    def _describe_protocol(
        self, metrics: Mapping[str, Mapping[str, Any]], held_out_sha256: str, num_samples: int
    ) -> dict[str, Any]:
        data = self.config.run.data
        assert data.val is not None
        return {
            "features": {name: extractor.describe() for name, extractor in self.scorer.extractors.items()},
            "metrics": metrics,
            "split": "val",
            "augmentations": {name: str(value) for name, value in data.val.augmentations.items()},
            "num_real": _count_images(self.scorer.real or {}),
            "num_samples": num_samples,
            "held_out_sha256": held_out_sha256,
            "precision": self.runtime.precision,
            "seed": self.seed,
        }

    def _name_card(self, found: FoundCheckpoint, weights: str) -> Path | None:
        if self.logdir is None:
            return None
        short = hash_protocol(self.protocol)[:8]
        step = int(found.state.get("current_iteration", 0))
        return self.logdir / FOLDER / f"iteration_{step:09d}_{weights}_{short}.json"

    def _make_card(
        self,
        found: FoundCheckpoint,
        weights: str,
        sha256: str,
        measured: Measured,
        values: Mapping[str, float],
        baselines: Mapping[str, Mapping[str, float]],
        at_floor_sizes: Mapping[str, float],
    ) -> Card:
        data = self.config.run.data
        assert data.val is not None
        sizes = [(len(of), len((self.scorer.real or {})[key])) for key, of in measured.sets.items()]
        drawn = min(sizes[0][0], sizes[0][1] // 2) if sizes else 0
        subject = {
            "iteration": int(found.state.get("current_iteration", 0)),
            "epoch": int(found.state.get("current_epoch", 0)),
            "weights": weights,
            "checkpoint": found.path.name,
            "checkpoint_sha256": sha256,
            "method": self.config.trainer.type,
            "data": data.name,
            "real": ", ".join(str(root) for root in data.val.roots),
            "num_generated": _count_images(measured.sets),
            "baselines": {name: dict(of) for name, of in baselines.items() if name != REAL},
        }
        return Card(
            values={name: value for name, value in values.items() if not math.isnan(value)},
            intervals={**measured.intervals, **self._measure_intervals(measured.sets, values)},
            floor=dict(baselines.get(REAL, {})),
            floor_sizes=(drawn, sizes[0][1] - drawn) if sizes else (0, 0),
            at_floor_sizes=dict(at_floor_sizes),
            protocol=self.protocol,
            subject=subject,
            warnings=self._list_warnings(measured.sets, values),
            higher_is_better={score.name: score.higher_is_better for score in self.scorer.described},
            made_by={**describe_program(), "device": self.runtime.describe()},
        )

    def _measure_intervals(
        self, generated: Mapping[SetKey, FeatureSet], values: Mapping[str, float]
    ) -> dict[str, tuple[float, float]]:
        """Of the numbers that compare sets, of each domain by itself."""
        intervals: dict[str, tuple[float, float]] = {}
        for domain in dict.fromkeys(domain for _, domain in generated):
            sets = {key: of for key, of in generated.items() if key[1] == domain}
            real = {key: of for key, of in (self.scorer.real or {}).items() if key in sets}
            count = min(len(of) for of in sets.values())
            if not real or count + max(map(len, real.values())) > MOST_IMAGES_FOR_INTERVALS:
                continue

            def compare(rows: Any, sets: Any = sets, real: Any = real) -> dict[str, float]:
                return self.scorer.compare(real, {key: of.select(rows) for key, of in sets.items()})

            smooth = [metric for metric in self.scorer.of_sets if not metric.draws_images]
            names = [metric.name_value(short, domain) for metric in smooth for short in metric.values]
            own = {name: values[name] for name in names if name in values}
            intervals |= measure_intervals(compare, own, count, self.seed)
        return intervals

    def _list_warnings(self, generated: Mapping[SetKey, FeatureSet], values: Mapping[str, float]) -> list[str]:
        warnings: list[str] = []
        for key, of in generated.items():
            names = [m.name_value(s, key[1]) for m in self.scorer.of_sets if m.features == key[0] for s in m.values]
            if undefined := [name for name in names if math.isnan(values[name])]:
                warnings.append(f"{', '.join(undefined)}: not defined for {len(of):,} generated images")
            metrics = [metric for metric in self.scorer.of_sets if metric.features == key[0]]
            warnings += list_warnings(metrics, (self.scorer.real or {})[key], of)
        for features in self.protocol["features"].values():
            network = features.get("network")  # the user's code has none
            where = None if network is None else find_in_training(self.config, str(network))
            if where is not None:
                warnings.append(f"{network}, which sees the images here, also took part in training ({where})")
        return list(dict.fromkeys(warnings))

    def _draw_nearest(self, recipe: Recipe, path: Path | None) -> str:
        """Writes the image beside the card; returns what is to be seen on it, or nothing if there is none."""
        if path is None or not self.scorer.extractors or self.evaluator.training is None:
            return ""
        if self.nearest is None:
            with self.progress("training images") as update:
                self.nearest = NearestImages.look_at_training(self.evaluator, recipe, update)
        return self.nearest.draw(recipe, path.with_name(f"{path.stem}_nearest.jpg"))


def find_in_training(config: Config, network: str) -> str | None:
    """Where a config names a network for its losses or players, "trainer.perceptual_loss.mode"; None if nowhere."""
    sections = {name: each for name, each in config.to_dict().items() if name in ("trainer", *config.players)}
    base = network.removesuffix("_signed")  # the same weights
    return next((key for key, value in flatten(sections).items() if value.removesuffix("_signed") == base), None)


def _read_kept(path: Path | None, protocol: Mapping[str, Any], sha256: str) -> Card | None:
    """The card in a file, if it is of this protocol and this checkpoint."""
    if path is None or not path.is_file():
        return None
    try:
        card = read_card(path)
    except UserError:  # cut off or of another version: measured again
        return None
    is_same = card.protocol_hash == hash_protocol(protocol) and card.subject.get("checkpoint_sha256") == sha256
    return card if is_same else None
