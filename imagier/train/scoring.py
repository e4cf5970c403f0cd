"""What metrics say of the images of a held-out set: the generator's, and those that it should beat."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagier.metrics.feature_metric import FeatureMetric, FeatureSet
from imagier.metrics.features import FeatureExtractor
from imagier.metrics.metric import AnyMetric, Metric
from imagier.recipe import Batch, Recipe
from imagier.train.clips import FrameJoiner, Rollout
from imagier.train.feature_cache import FeatureCache
from imagier.train.hooks.baselines import CLASS_COLORS, ClassErrors, measure_mean_colors
from imagier.train.image_rows import ImageRows, SetKey, SetRows, hash_samples, join_rows, merge_sets, name_samples
from imagier.train.known import Known, collect_known, list_images, to_unit
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.runtime import Runtime

Scores = dict[str, float]
"""Numbers by their names; NaN where not defined."""

GENERATOR = "generator"
"""With average weights, where it has an average."""
LIVE = "live weights"
"""The generator in training, where it has an average, too."""
REAL = "real images"
"""As if they were generated: the best that can be. As sets, some of them against the others."""


@dataclass(frozen=True)
class Made:
    """What something makes of a batch, in [-1, 1]."""

    sample: Tensor
    """N x 3 x H x W: compared with the target, image by image."""
    domains: Mapping[str, Tensor]
    """Images of domains of the recipe, compared with real ones as sets."""


@dataclass(frozen=True)
class Measured:
    """What was seen of one maker of images; the same on all ranks."""

    values: Scores
    """Of the metrics that compare each image with its target."""
    intervals: Mapping[str, tuple[float, float]]
    """Where some of them lie with 95 % confidence, over sets of this size."""
    sets: Mapping[SetKey, FeatureSet]
    by_class: ClassErrors
    num_broken: int = 0
    """Images that hold numbers that are not finite. With any, there are no values."""


class Scorer:
    """Applies metrics to a held-out set. What it learns of real images, it learns once.

    Batches about which no metric knows enough are not scored; if all are such, there are no scores.
    """

    def __init__(
        self,
        metrics: Sequence[AnyMetric],
        runtime: Runtime,
        *,
        domains: Iterable[str] = ("",),
        open_cache: Callable[[FeatureExtractor], FeatureCache | None] = lambda extractor: None,
    ) -> None:
        """domains: those of the recipe. open_cache: returns the cache of features of real images, if there is one.

        UserError: the weights of a network that a metric uses cannot be had.
        """
        self.domains = tuple(domains)
        self.described = [score for metric in metrics for score in metric.list_scores(self.domains)]
        """What people should know of each number."""
        self.pairwise = [metric for metric in metrics if isinstance(metric, Metric)]
        self.of_sets = [metric for metric in metrics if isinstance(metric, FeatureMetric)]
        self.runtime = runtime
        for metric in metrics:
            metric.load(runtime.device)
        names: dict[str, None] = dict.fromkeys(metric.features for metric in self.of_sets)
        self.extractors = {name: FeatureExtractor(name, runtime.device) for name in names}
        self._features_of_clips = {metric.features for metric in self.of_sets if metric.takes_clips}
        self._caches = {name: open_cache(extractor) for name, extractor in self.extractors.items()}
        self.real: dict[SetKey, FeatureSet] | None = None
        """Of all ranks, once images have been measured."""
        self._floor: tuple[dict[SetKey, int], int, Scores] | None = None
        """The sizes of the generated sets, the seed, and the numbers."""

    def leave_out(self, metrics: Collection[FeatureMetric]) -> None:
        """Measures no numbers of these metrics any more."""
        names = {score.name for metric in metrics for score in metric.list_scores(self.domains)}
        self.described = [score for score in self.described if score.name not in names]
        self.of_sets = [metric for metric in self.of_sets if metric not in metrics]

    def fit(self, recipe: Recipe, training: Callable[[], Iterable[Batch]]) -> None:
        """Lets metrics that learn see training images, on the first rank; the others get what it learned.

        training: samples for the first rank alone. UserError if they lack something.
        """
        for metric in self.pairwise:
            if metric.learns:
                with raise_on_all_ranks(self.runtime):
                    if self.runtime.is_main:
                        metric.fit(Known(recipe, training))
                learned = metric.learned_state() if self.runtime.is_main else {}
                learned = self.runtime.broadcast({name: tensor.cpu() for name, tensor in learned.items()})
                metric.load_learned(learned, self.runtime.device)

    @property
    def imperfect(self) -> set[str]:
        """The names of the numbers that are not perfect for real images, whose own are the best that can be."""
        return {name for metric in self.pairwise if metric.learns or metric.takes_clips for name in metric.scores}

    @torch.no_grad()
    def measure_real(self, recipe: Recipe, batches: Iterable[Batch]) -> tuple[str, int]:
        """Looks at the held-out set, before images are measured: its SHA-256, and the number of samples. On all ranks.

        The hash is of all tensors of all samples, so that it stands for all that the data have to do with a score.
        """
        rows = SetRows()
        samples = ImageRows()
        for stored in batches:
            batch = recipe.prepare(stored)
            self._add(rows, recipe, batch, recipe.real_images(batch), is_real=True)
            names = name_samples(batch, None)
            samples.add(names, torch.empty(len(names), 0), None, None, hash_samples(batch))
        self._merge_real(rows.sets)
        ((all_samples, digests),) = merge_sets({("", ""): samples} if samples.names else {}, self.runtime).values()
        assert digests is not None
        return hashlib.sha256(digests.numpy().tobytes()).hexdigest(), len(all_samples)

    @torch.no_grad()
    def measure(
        self, recipe: Recipe, batches: Iterable[Batch], make: Callable[[Batch], Mapping[str, Made]]
    ) -> dict[str, Measured]:
        """What is seen of the images that `make` makes of each batch, by what made them. Called on all ranks.

        recipe: prepares batches, and knows their targets. batches: this rank's share.
        """
        seen: dict[str, _Seen] = {}
        real = SetRows()
        for stored in batches:
            batch = recipe.prepare(stored)
            known = collect_known(recipe, batch)
            real_images = recipe.real_images(batch) if self.of_sets else {}
            if not real_images and not any(known.keys() >= set(metric.needs) for metric in self.pairwise):
                continue
            images = make(batch)
            with self.runtime.full_precision():
                if self.real is None:
                    self._add(real, recipe, batch, real_images, is_real=True)
                for name, made in images.items():
                    of_maker = seen.setdefault(name, _Seen(self.pairwise, self.runtime.device))
                    of_maker.add(batch, made, known, has_classes=name in (GENERATOR, CLASS_COLORS))
                    domains = {domain: each for domain, each in made.domains.items() if domain in real_images}
                    self._add(of_maker.rows, recipe, batch, domains, is_real=False)
        if self.real is None:
            self._merge_real(real.sets)
        names = self.runtime.broadcast(list(seen))
        return {name: seen.get(name, _Seen(self.pairwise, self.runtime.device)).merge(self.runtime) for name in names}

    def generate(self, recipes: Mapping[str, Recipe], seed: int) -> Callable[[Batch], dict[str, Made]]:
        """What `measure` makes of batches: the images of recipes, by name.

        Noise depends on the seed and on the name of a sample alone, so that neither ranks nor batches change an image:
        a recipe that draws any makes one image at a time. Frames of clips follow from those before them.
        """
        draws: set[str] = set()

        def choose_seeds(batch: Batch) -> tuple[int, ...]:
            return (seed, *(number % 2**64 for number in sum(name_samples(batch, None)[:1], ())))

        rollouts = {
            name: Rollout(recipe, choose_seeds, self.runtime) for name, recipe in recipes.items() if recipe.is_video
        }

        def make_of(batch: Batch, name: str) -> Made:
            recipe, seeds = recipes[name], choose_seeds(batch)
            same = replace(self.runtime, rank=0)
            same.seed(*seeds)  # for layers that draw noise of their own
            rng = same.generator(*seeds)
            before = rng.get_state(), torch.get_rng_state()
            with self.runtime.autocast():
                sample = recipe.sample(batch, rng)
                domains = recipe.translate(batch, rng, sample) if self.of_sets else {}
            if not all(map(torch.equal, before, (rng.get_state(), torch.get_rng_state()))):
                draws.add(name)
            return Made(sample, domains)

        def make(batch: Batch) -> dict[str, Made]:
            made = {}
            for name, recipe in recipes.items():
                if name in rollouts:
                    sample = rollouts[name](batch)
                    made[name] = Made(sample, {next(iter(recipe.domains)): sample})
                elif name not in draws:
                    made[name] = make_of(batch, name)
                if name in draws:
                    made[name] = _join([make_of(one, name) for one in batch.split(len(batch))])
            return made

        return make

    def measure_baselines(
        self, recipe: Recipe, batches: Callable[[], Iterable[Batch]], training: Callable[[], Iterable[Batch]] | None
    ) -> dict[str, Measured]:
        """What is seen of what the generator should beat, and of real images where metrics learn from them.

        training: see `measure_mean_colors`; None: their mean color is no baseline.
        """
        colors = None if training is None else measure_mean_colors(training(), recipe, self.runtime)
        first = next(iter(recipe.domains))

        def make(batch: Batch) -> dict[str, Made]:
            images, target = dict(recipe.baselines(batch)), recipe.target(batch)
            if target is not None and colors is not None:
                images |= colors.paint(recipe, batch, target)
            made = {name: Made(each, {first: each}) for name, each in images.items()}
            return {**made, REAL: Made(target, {})} if self.imperfect and target is not None else made

        return self.measure(recipe, batches(), make)

    def score_baselines(self, measured: Mapping[str, Measured], generated: Measured, seed: int) -> dict[str, Scores]:
        """The numbers of `measure_baselines`; those of real images, the best that can be, last. On all ranks.

        generated: as many real images as these are taken, at random, as if they were generated.
        """
        scores = self.score(measured)
        best = {name: value for name, value in scores.pop(REAL, {}).items() if name in self.imperfect}
        of_clips = {name for metric in self.pairwise if metric.takes_clips for name in metric.scores}
        # Baselines do not move, and so do not flicker: nothing beats them.
        scores = {name: {k: v for k, v in of.items() if k not in of_clips} for name, of in scores.items()}
        best |= self.measure_floor(generated.sets, seed)
        return {**scores, REAL: best} if best else scores

    def score(self, measured: Mapping[str, Measured]) -> dict[str, Scores]:
        """All numbers, by what made the images. Called on all ranks."""
        scores: dict[str, Scores] = {}
        if self.runtime.is_main:
            real = self.real or {}
            for name, of in measured.items():
                scores[name] = {**of.values, **self.compare(real, of.sets)}
                if of.num_broken:
                    scores[name] = dict.fromkeys(scores[name], math.nan)
        return self.runtime.broadcast(scores)

    def compare(self, real: Mapping[SetKey, FeatureSet], generated: Mapping[SetKey, FeatureSet]) -> Scores:
        """The numbers that compare sets of images, of every domain."""
        scores: Scores = {}
        for metric in self.of_sets:
            for key in real:
                features, domain = key
                if features == metric.features and key in generated:
                    values = metric.measure(real[key], generated[key])
                    scores |= {metric.name_value(short, domain): values.get(short, math.nan) for short in metric.values}
        return scores

    def measure_floor(self, generated: Mapping[SetKey, FeatureSet], seed: int) -> Scores:
        """The numbers that compare as many real images as were generated, but at most half, with the others.

        On all ranks.
        """
        sizes = {key: len(of) for key, of in generated.items()}
        if self._floor is None or self._floor[:2] != (sizes, seed):
            floor = self._compare_halves(generated, seed, lambda drawn, key: drawn)
            self._floor = sizes, seed, floor
        return self._floor[2]

    def measure_at_floor_sizes(self, generated: Mapping[SetKey, FeatureSet], seed: int) -> Scores:
        """The numbers that compare as many generated images with the same others as the floor has. On all ranks."""
        return self._compare_halves(generated, seed, lambda drawn, key: draw_images(generated[key], len(drawn), seed))

    def _compare_halves(
        self,
        generated: Mapping[SetKey, FeatureSet],
        seed: int,
        choose: Callable[[FeatureSet, SetKey], FeatureSet],
    ) -> Scores:
        """choose: returns what is compared with a part of the real images, by the other part."""
        scores: Scores = {}
        if self.runtime.is_main:
            real = self.real or {}
            parts = {key: split_real(real[key], len(of), seed) for key, of in generated.items() if key in real}
            others = {key: pair[1] for key, pair in parts.items()}
            scores = self.compare(others, {key: choose(pair[0], key) for key, pair in parts.items()})
        return self.runtime.broadcast(scores)

    def _add(self, rows: SetRows, recipe: Recipe, batch: Batch, images: Mapping[str, Tensor], *, is_real: bool) -> None:
        """Adds the features of images of some domains."""
        for domain, of_domain in images.items():
            input_type = recipe.domains[domain].real if is_real else recipe.domains[domain].content
            found = list_images(recipe, batch, domain, of_domain, input_type)
            for features, extractor in self.extractors.items():
                pixels, names, labels = found
                if features in self._features_of_clips:
                    pixels, names, labels = rows.join(batch, (features, domain), pixels, names)
                    if not names:
                        continue
                of_set = rows.sets.setdefault((features, domain), ImageRows())
                cache = self._caches.get(features) if is_real else None
                if cache is None:
                    of_set.add(names, *extractor(pixels), labels)
                else:
                    cached = cache.extract(pixels, extractor)
                    of_set.add(names, cached.features, cached.logits, labels, cached.digests)

    def _merge_real(self, rows: Mapping[SetKey, ImageRows]) -> None:
        """Remembers the real images of all ranks, and writes their features into the cache."""
        gathered = merge_sets(rows, self.runtime)
        self.real = {key: of_set for key, (of_set, _) in gathered.items()}
        for features, cache in self._caches.items() if self.runtime.is_main else ():
            found = [(of_set, digests) for (name, _), (of_set, digests) in gathered.items() if name == features]
            if found and cache is not None:
                cache.save(
                    torch.cat([digests for _, digests in found if digests is not None]),
                    torch.cat([of_set.features for of_set, _ in found]),
                    join_rows([of_set.logits for of_set, _ in found]),
                )
        self._caches = {}  # their content is not needed any more


def _join(parts: Sequence[Made]) -> Made:
    domains = {domain: torch.cat([part.domains[domain] for part in parts]) for domain in parts[0].domains}
    return Made(torch.cat([part.sample for part in parts]), domains)


class _Seen:
    """What metrics know so far of one maker of images, on this rank."""

    def __init__(self, pairwise: Sequence[Metric], device: torch.device) -> None:
        self.pairwise = [metric.fresh(device) for metric in pairwise]
        self.by_class = ClassErrors()
        self.num_broken = 0
        self.rows = SetRows()
        self._joiner = FrameJoiner()

    def add(self, batch: Batch, made: Made, known: Mapping[str, Tensor], *, has_classes: bool) -> None:
        """Adds a batch to the metrics that know enough about it. has_classes: and to the errors by class."""
        images = to_unit(made.sample)
        takes_clips = any(metric.takes_clips for metric in self.pairwise)
        clips = self._joiner.add(batch, {"images": images, **known}) if takes_clips else []
        self.num_broken += _count_broken([made.sample, *made.domains.values()])
        for metric in self.pairwise:
            if known.keys() >= set(metric.needs):
                for seen in clips if metric.takes_clips else [{"images": images, **known}]:
                    metric.update(seen["images"], seen)
        if has_classes and {"targets", "classes"} <= known.keys():
            self.by_class.update(images, known["targets"], known["classes"])

    def merge(self, runtime: Runtime) -> Measured:
        """What all ranks have seen. Called on all of them."""
        values: Scores = {}
        intervals: dict[str, tuple[float, float]] = {}
        for metric in self.pairwise:
            metric.merge(runtime.all_gather)
            values |= metric.compute_all()
            intervals |= metric.compute_intervals()
        self.by_class.merge(runtime)
        num_broken = sum(runtime.all_gather_objects(self.num_broken))
        if num_broken:  # a mean over the other images would flatter them
            values, intervals = dict.fromkeys(values, math.nan), {}
        sets = {key: of_set for key, (of_set, _) in merge_sets(self.rows.sets, runtime).items()}
        return Measured(values, intervals, sets, self.by_class, num_broken)


def split_real(real: FeatureSet, num_generated: int, seed: int) -> tuple[FeatureSet, FeatureSet]:
    """Real images as if they were generated: as many, but at most half of all; and the others."""
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    count = min(num_generated, len(real) // 2)
    return real.select(order[:count]), real.select(order[count:])


def draw_images(images: FeatureSet, count: int, seed: int) -> FeatureSet:
    """Some of the images, at random."""
    return images.select(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count])


def _count_broken(images: Iterable[Tensor]) -> int:
    """The rows of tensors in one of which a number is not finite."""
    finite = torch.stack([each.isfinite().flatten(1).all(dim=1) for each in images])
    return int((~finite.all(dim=0)).sum())
