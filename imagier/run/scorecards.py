"""Cards of the checkpoints of a run: what they score on the held-out set, and all that the numbers depend on."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagier.config.check import Component, Config
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureSet
from imagier.metrics.features import hash_file
from imagier.recipe import Recipe
from imagier.run.build_scorer import choose_metrics
from imagier.run.comparison import describe_program, list_warnings
from imagier.run.evaluation import Evaluator, check_has_held_out_set
from imagier.run.experiment import CONFIG, ConfigSource, Experiment
from imagier.run.folder_lock import lock_folder
from imagier.run.inference import load_weighted_recipe, load_weights, read_experiment_of_run
from imagier.run.intervals import MOST_IMAGES_FOR_INTERVALS, measure_intervals
from imagier.run.nearest import NearestImages
from imagier.run.options import RunOptions
from imagier.run.process import open_runtime
from imagier.train import manifest
from imagier.train.card import Card, hash_protocol, read_card
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.disk import describe_error
from imagier.train.hooks import files, page, tensorboard
from imagier.train.hooks.evaluations import FOLDER, NEAREST
from imagier.train.hooks.log import Record, Sink
from imagier.train.hooks.wandb import WandB
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, REAL, Measured, SetKey

logger = logging.getLogger(__name__)

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def show_nothing(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """No progress display."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which checkpoints are measured, and by what."""

    metrics: Sequence[Component] | None = None
    """None: those of the config; and FD, KD and PRDC, if that has none that compare sets of images."""
    features: str | None = None
    """The space of FD, KD and PRDC, if they are added to the metrics of the config; None: efflite0."""
    weights: Sequence[Literal["average", "regular"]] = ("average",)
    """An average that a checkpoint does not hold is replaced by its regular weights."""
    folder: Path | None = None
    """All checkpoints of this folder, instead of one."""
    start_iter: int = 0
    """Of a folder: those from this iteration on."""
    end_iter: int = 10**9
    """Of a folder: those up to this iteration."""


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
    experiment, options = read_experiment_of_run(config_or_logdir, options, overrides)
    check_has_held_out_set(experiment.config)
    paths = [None] if request.folder is None else list_checkpoints(request)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        measurer: _Measurer | None = None
        cards = []
        for path in paths:
            of_one = options if path is None else dataclasses.replace(options, checkpoint=path)
            found = load_weights(experiment, of_one)
            recipe, name = load_weighted_recipe(experiment.config, found, runtime)
            if measurer is None:
                measurer = _Measurer(experiment, recipe, runtime, options, request)
            for weights in dict.fromkeys(name if wanted == "average" else wanted for wanted in request.weights):
                if weights != name:
                    recipe, name = load_weighted_recipe(experiment.config, found, runtime, use_average=False)
                cards.append(measurer.measure(recipe, found, weights, progress))
                measurer.update_page()
                if runtime.is_main:
                    show(cards[-1])
        if measurer is not None and measurer.logdir is not None:
            _record(cards, measurer.logdir, experiment.config, options, runtime)
        return cards


def list_checkpoints(request: EvaluationRequest) -> list[Path]:
    """The checkpoints of a folder within the iterations that are asked for. UserError if there are none."""
    assert request.folder is not None
    entries = manifest.scan_folder(request.folder) if request.folder.is_dir() else []
    paths = [request.folder / entry.name for entry in entries if request.start_iter <= entry.step <= request.end_iter]
    if not paths:
        steps = f"; there are {len(entries)} of other iterations" if entries else ""
        what = f"holds no checkpoint of the iterations {request.start_iter:,} to {request.end_iter:,}{steps}"
        raise UserError(what, where=request.folder, advice="name another folder", code="missing-checkpoint")
    return paths


class _Measurer:
    """Measures one checkpoint after the other."""

    def __init__(
        self, experiment: Experiment, recipe: Recipe, runtime: Runtime, options: RunOptions, request: EvaluationRequest
    ) -> None:
        """recipe: any of this experiment. UserError: wrong data, or no weights for a network that a metric uses."""
        self.config = experiment.config
        self.runtime = runtime
        self.logdir = _find_logdir(options, request)
        self.seed = options.seed or 0
        metrics = choose_metrics(self.config, request.features, runtime) if request.metrics is None else request.metrics
        self.evaluator = Evaluator(self.config, recipe, runtime, self.seed, [metric.build() for metric in metrics])
        self.scorer = self.evaluator.scorer
        self.described = [{"type": metric.type, **metric.options} for metric in metrics]
        self.real_sha256 = ""
        self.nearest: NearestImages | None = None
        """Of the training images; None before the first checkpoint, and where they are not here."""

    def measure(self, recipe: Recipe, found: FoundCheckpoint, weights: str, progress: Progress) -> Scorecard:
        """The card of a checkpoint's weights. It is the same on all ranks; the first one writes it."""
        if not self.real_sha256:
            with progress("real images") as update:
                self.real_sha256 = self.evaluator.measure_real(recipe, update)
        protocol = self._describe_protocol(recipe)
        sha256 = hash_file(found.path) if self.runtime.is_main else ""
        path = self._name_card(found, weights, protocol)
        kept = self.runtime.broadcast(_read_kept(path, protocol, sha256) if self.runtime.is_main else None)
        if kept is not None:
            logger.info(f"{found.path.name}, {weights} weights: {path} holds its scores already")
            return Scorecard(kept, path, is_new=False)
        with progress(f"{found.path.name}, {weights} weights") as update:
            measured = self.evaluator.measure(recipe, update)
        if measured is None:
            names = ", ".join(score.name for score in self.scorer.described)
            what = f"nothing that {names or 'any metric'} could measure: the data have no targets"
            advice = "choose metrics that compare sets, such as kd"
            raise UserError(what, where="metrics", advice=advice, code="nothing-to-measure")
        baselines = self.evaluator.score_baselines(recipe, measured)
        values = self.scorer.score({GENERATOR: measured})[GENERATOR]
        at_floor = self.scorer.measure_floor(measured.sets, self.seed)[1]
        card: Card | None = None
        if self.runtime.is_main:
            card = self._make_card(found, weights, protocol, sha256, measured, values, baselines, at_floor)
        caption = self._draw_nearest(recipe, path, progress)
        if self.runtime.is_main and card is not None:
            subject = {**card.subject, **({NEAREST: caption} if caption else {})}
            card = dataclasses.replace(card, subject=subject)
            if path is not None:
                card.write(path)
        card = self.runtime.broadcast(card)
        assert card is not None
        return Scorecard(card, path)

    def update_page(self) -> None:
        """Shows on the page of the run what was measured so far."""
        if self.logdir is None or not self.runtime.is_main:
            return
        try:
            page.write_page(self.logdir)
        except OSError as error:
            logger.warning(f"{self.logdir / page.NAME}: cannot be written: {describe_error(error)}")

    def _describe_protocol(self, recipe: Recipe) -> dict[str, Any]:
        data = self.config.run.data
        assert data.val is not None
        real = self.scorer.real or {}
        return {
            "features": {name: extractor.describe() for name, extractor in self.scorer.extractors.items()},
            "metrics": [dict(one) for one in self.described],
            "split": "val",
            "augmentations": {name: str(value) for name, value in data.val.augmentations.items()},
            "num_real": {domain or "images": len(of) for (_, domain), of in real.items()},
            "num_samples": len(self.evaluator.held_out.dataset),
            "real_sha256": self.real_sha256,
            "seed": self.seed,
        }

    def _name_card(self, found: FoundCheckpoint, weights: str, protocol: Mapping[str, Any]) -> Path | None:
        if self.logdir is None:
            return None
        short = hash_protocol(protocol)[:8]
        step = int(found.state.get("current_iteration", 0))
        return self.logdir / FOLDER / f"iteration_{step:09d}_{weights}_{short}.json"

    def _make_card(
        self,
        found: FoundCheckpoint,
        weights: str,
        protocol: Mapping[str, Any],
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
            "num_generated": {domain or "images": len(of) for (_, domain), of in measured.sets.items()},
            "baselines": {name: dict(of) for name, of in baselines.items() if name != REAL},
        }
        return Card(
            values=dict(values),
            intervals={**measured.intervals, **self._measure_intervals(measured.sets, values)},
            floor=dict(baselines.get(REAL, {})),
            floor_sizes=(drawn, sizes[0][1] - drawn) if sizes else (0, 0),
            at_floor_sizes=dict(at_floor_sizes),
            protocol=dict(protocol),
            subject=subject,
            warnings=self._list_warnings(measured.sets),
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

            own = self.scorer.compare(real, sets)
            intervals |= measure_intervals(compare, {name: values[name] for name in own}, count, self.seed)
        return intervals

    def _list_warnings(self, generated: Mapping[SetKey, FeatureSet]) -> list[str]:
        warnings: list[str] = []
        for key, of in generated.items():
            metrics = [metric for metric in self.scorer.of_sets if metric.features == key[0]]
            warnings += list_warnings(metrics, (self.scorer.real or {})[key], of)
        networks = {extractor.describe().get("network") for extractor in self.scorer.extractors.values()}
        for network, section in find_networks_in_losses(self.config.to_dict()).items():
            if network in networks:
                warnings.append(f"{network}, which sees the images here, also took part in training ({section})")
        return list(dict.fromkeys(warnings))

    def _draw_nearest(self, recipe: Recipe, path: Path | None, progress: Progress) -> str:
        """Writes the image beside the card; returns what is to be seen on it, or nothing if there is none."""
        if path is None or not self.scorer.extractors or self.evaluator.training is None:
            return ""
        if self.nearest is None:
            with progress("training images") as update:
                self.nearest = NearestImages.look_at_training(self.evaluator, recipe, update)
        return self.nearest.draw(recipe, path.with_name(f"{path.stem}_nearest.jpg"))


def find_networks_in_losses(config: Mapping[str, Any]) -> dict[str, str]:
    """All names in a config, but for its data and metrics, and where each stands: "trainer.perceptual_loss.mode"."""
    found: dict[str, str] = {}

    def walk(value: Any, where: str) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                walk(each, f"{where}.{key}" if where else str(key))
        elif isinstance(value, str):
            found.setdefault(value, where)

    walk({key: value for key, value in config.items() if key not in ("data", "test_data", "metrics")}, "")
    return found


def _find_logdir(options: RunOptions, request: EvaluationRequest) -> Path | None:
    """The folder of the run whose checkpoints are measured; None if they are in no such folder."""
    if options.logdir is not None:
        return Path(options.logdir)
    if request.folder is not None:
        return request.folder
    if options.checkpoint is not None and (Path(options.checkpoint).parent / CONFIG).is_file():
        return Path(options.checkpoint).parent
    return None


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


def _record(cards: Sequence[Scorecard], logdir: Path, config: Config, options: RunOptions, runtime: Runtime) -> None:
    """Adds new scores to the log of a run, with the tags of its training, unless the run is still writing it."""
    new = [each.card for each in cards if each.is_new]
    try:
        with lock_folder(logdir, runtime):
            if new and runtime.is_main:
                for sink in _open_sinks(logdir, config, options):
                    for record in _list_records(new, logdir):
                        sink.scalars(record)
                    sink.close()
    except UserError as error:
        if error.code != "logdir-locked":
            raise
        logger.info(f"{logdir}: a run is writing there, so its log gets no scores; {FOLDER} and its page have them")
    except OSError as error:
        logger.warning(f"{logdir}: its log gets no scores: {describe_error(error)}")


def _open_sinks(logdir: Path, config: Config, options: RunOptions) -> list[Sink]:
    sinks: list[Sink] = [files.JsonLines(logdir, from_step=sys.maxsize)]
    if tensorboard.is_installed():
        sinks.append(tensorboard.TensorBoard(logdir, from_step=0, images=False))
    if options.wandb:
        described = {**config.to_dict(), "dataset": config.run.data.name}
        project, run_id = options.wandb_project, options.wandb_id
        sinks.append(WandB(logdir, project=project, run_id=run_id, resuming=True, config=described))
    return sinks


def _list_records(cards: Sequence[Card], logdir: Path) -> list[Record]:
    """What the log does not have: values by the reference's tags, FID/average, and the best so far, best_FID."""
    logged = {(record["step"], tag) for record in files.read(logdir) for tag in record}
    best: dict[str, float] = {}
    records = []
    for card in sorted(cards, key=lambda card: card.subject["iteration"]):
        step, weights = card.subject["iteration"], card.subject["weights"]
        values = {name: value for name, value in card.values.items() if math.isfinite(value)}
        for name, value in values.items():
            choose = max if card.higher_is_better.get(name) else min
            best[name] = choose(value, best.get(name, value))
        tags = {f"{name}/{weights}": value for name, value in values.items()}
        tags |= {f"best_{name}": best[name] for name in values}
        missing = {tag: value for tag, value in tags.items() if (step, tag) not in logged}
        logged |= {(step, tag) for tag in missing}
        if missing:
            records.append(Record(step, card.subject["epoch"], missing))
    return records
