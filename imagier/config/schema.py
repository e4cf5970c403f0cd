"""The keys of a config that every method has: type, default, meaning. And the kinds of components it can name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from imagier.config.find import Kind

BIG = 1_000_000_000
"""Never."""

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""The weight of the past in a running mean."""


@dataclass(frozen=True)
class Section:
    """Marks a key whose value is a section that names a component of a kind, or a list of them.

    In a list, a text stands for a section with this `type` and nothing else.
    """

    kind: Kind


@dataclass(frozen=True, kw_only=True)
class LrPolicy:
    """The learning rate over time; the keys of the schedule that `type` names stand beside these."""

    type: str = "step"
    iteration_mode: bool = False
    """Count time in iterations instead of epochs."""
    warmup: Count = 0
    """The first so many epochs or iterations, in which the rate rises linearly from 0 (Goyal et al. 2017, 2.2)."""


SCHEDULE = Kind("schedule", "Schedule", "schedules", "imagier.train.schedule:Schedule", LrPolicy)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How the weights of a player are updated; the keys of the optimizer that `type` names stand beside these."""

    type: str = "adam"
    lr: NonNegative = 1e-4
    lr_policy: Annotated[Any, Section(SCHEDULE)] = None
    clip_grad_norm: PositiveFloat | None = None
    """Largest L2 norm of the gradient of the whole network."""
    skip_grad: bool = False
    """Skip an update whose gradient norm is above clip_grad_norm, instead of clipping it."""


OPTIMIZER = Kind("optimizer", "Optimizer", "optimizers", "torch.optim:Optimizer", Optimizer)
METRIC = Kind("metric", "Metric", "metrics", "imagier.metrics.metric:Metric")


@dataclass(frozen=True, kw_only=True)
class ModelAverage:
    """The running averages of networks. That of the generator makes the images."""

    enabled: bool = False
    players: list[str] | None = None
    """The players that have one; None: the generator alone."""
    beta: Share = 0.9999
    start_iteration: Count = 1000
    """Updates during which the average equals the weights."""
    num_batch_norm_estimation_iterations: Count = 30
    """Batches on which the batch norm statistics of the generator's average are measured, if it has any."""
    remove_sn: bool = True
    """Average the normalized weights of layers with a spectral norm."""
    g_smooth_img: PositiveFloat | None = None
    """Half-life in images; replaces beta."""


@dataclass(frozen=True, kw_only=True)
class BiasInit:
    """First values of biases."""

    type: Literal["normal"] = "normal"
    gain: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Init:
    """First values of weights."""

    type: Literal["normal", "xavier", "xavier_uniform", "kaiming", "kaiming_linear", "orthogonal", "none"] = "none"
    gain: float = 0.02
    bias: BiasInit | None = None
    """None makes biases 0."""


@dataclass(frozen=True, kw_only=True)
class Amp:
    """Half precision, and the loss scaler of fp16."""

    enabled: bool = False
    init_scale: PositiveFloat = 65536.0
    growth_factor: Annotated[float, Field(gt=1)] = 2.0
    backoff_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    growth_interval: Positive = 2000


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What all trainings have in common; the keys of the recipe that `type` names stand beside these."""

    type: str
    model_average_config: ModelAverage = ModelAverage()
    init: Init = Init()
    amp_config: Amp = Amp()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto follows amp_config.enabled: bf16 where the device is faster in it, fp16 on other GPUs, else fp32."""
    channels_last: bool = False
    """Keep images as N x H x W x C in memory; faster on most devices."""
    accumulate: Positive = 1
    """Batches whose gradients are added up before an update."""
    on_nonfinite: Literal["skip", "rollback", "stop"] = "skip"
    """A gradient that is not finite is never applied. skip: continue; rollback: continue from the last checkpoint with
    other data; stop: end the run."""
    strict_resume: bool = True
    """A checkpoint must fit the networks exactly."""
    image_to_tensorboard: bool = False


DEFAULT_DATASET = "paired_images"

RECIPE = Kind("model", "Recipe", "models", "imagier.recipe:Recipe", Trainer)
DATASET = Kind("data set type", "Dataset", "data", "imagier.data.dataset:Dataset")
CODEC = Kind("codec", "Codec", "codecs", "imagier.data.codec:Codec")


def player(name: str) -> Kind:
    """The networks of a player: `Generator` for gen, `Discriminator` for dis, `MyNet` for my_net."""
    camel = "".join(f"{word[:1].upper()}{word[1:]}" for word in name.split("_"))
    class_name = {"gen": "Generator", "dis": "Discriminator"}.get(name, camel)
    return Kind("model", class_name, "models", "torch.nn:Module")


def _refuse_key(value: object) -> None:
    raise PydanticCustomError("extra_forbidden", "unknown key")


Own = Annotated[dict[str, Any], BeforeValidator(_refuse_key), SkipJsonSchema()]
"""The keys that the class of a section has of its own; they stand next to the others. It is no key itself."""


@dataclass(frozen=True, kw_only=True)
class InputType:
    """One kind of file of a data set; the keys of the kind of input that `type` names stand next to these."""

    type: str | None = None
    """image, mask, class_map, keypoints or a dotted path; None follows is_mask, one_hot_num_classes and
    keypoint_data_types."""
    ext: str | None = None
    """File extension without dot."""
    num_channels: Positive | None = None
    normalize: bool = False
    """Bring values from [0, 1] to [-1, 1]."""
    is_mask: bool = False
    """Values are ids, of classes or instances; resized by nearest neighbor."""
    computed_on_the_fly: bool = False
    """Not read from disk, but made by an op."""
    own: Own = field(default_factory=dict)


Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
"""Red, green and blue."""

ONLY_IF_SET = {"is_only_shown_if_set": True}
"""Marks a key that a dump of the config does not name unless it was set, so that those of old configs stay the same."""

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
KernelSizes = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class ContrastOptions(TypedDict):
    """Brightness and contrast, from +-limit or from a range."""

    brightness_limit: NonNegative | Range
    contrast_limit: NonNegative | Range
    p: Share


class BlurOptions(TypedDict):
    """A blur with a kernel of an odd size: from 3 to the limit, or in a range."""

    blur_limit: Annotated[int, Field(ge=3)] | KernelSizes
    p: Share


class CompressionOptions(TypedDict):
    """The artifacts of JPEG, of a quality from the lower limit to 100."""

    quality_lower: Annotated[int, Field(ge=0, le=100)]
    p: Share


class GammaOptions(TypedDict):
    """A gamma curve; the limits are its exponent in per cent."""

    gamma_limit_lb: Count
    gamma_limit_ub: Count
    p: Share


class AugmentationKeys(TypedDict, total=False):
    """Changes of a sample, carried out in the order of the file, after one resize. Sizes are "height, width"."""

    resize_smallest_side: int | str
    resize_h_w: str
    random_resize_h_w_aspect: str
    rotate: float
    random_rotate_90: bool
    random_scale_limit: NonNegative
    random_crop_h_w: str
    center_crop_h_w: str
    horizontal_flip: bool
    contrast: ContrastOptions
    blur: BlurOptions
    motion_blur: BlurOptions
    compression: CompressionOptions
    gamma: GammaOptions
    max_time_step: Positive


def _keep_order(value: Any, handler: Any) -> Any:
    checked = handler(value)
    return {name: checked[name] for name in value}


Augmentations = Annotated[AugmentationKeys, WrapValidator(_keep_order)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a data set: train, val or test. Keys of the data set's own may stand next to these."""

    roots: list[str]
    root_weights: list[PositiveFloat] | None = None
    """train: how often a sample is drawn from each root, in the order of `roots`; None takes all samples alike."""
    batch_size: Positive = 1
    """Per process and update."""
    augmentations: Augmentations
    shuffle: Literal["samples", "shards"] = "samples"
    """train: an epoch's order is one of all samples, or one of shards with the samples of a few mixed, which reads each
    shard once."""
    dataset_type: Literal["folder", "lmdb", "shards", "object_store"] | None = None
    """What the roots are; None looks at them."""
    is_lmdb: bool = False
    """lmdb, if dataset_type is not given."""
    type: str | None = None
    """val: read by another data set type; input_types and input_image must then be given too."""
    input_types: list[dict[str, InputType]] | None = None
    input_image: list[str] | None = None
    own: Own = field(default_factory=dict)
    """All that its data set gets, also from the section `data`."""


Interpolator = Literal[
    "INTER_NEAREST",
    "INTER_LINEAR",
    "INTER_CUBIC",
    "INTER_AREA",
    "INTER_LANCZOS4",
    "INTER_LINEAR_EXACT",
    "INTER_NEAREST_EXACT",
]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Copies of what was read from an object store, on a local disk."""

    root: str
    """A folder; several runs may share it."""
    size_GB: PositiveFloat
    """The most that it may take, in units of 10**9 bytes."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which files there are, and how they form a sample. Keys of the data set that `type` names stand next to these."""

    name: str = "data"
    type: str = DEFAULT_DATASET
    num_workers: Count | None = None
    """Processes that read data, per rank; None: as many as the machine has cores for, up to 8."""
    """Processes that read samples, per rank."""
    persistent_workers: bool = False
    input_types: list[dict[str, InputType]]
    input_image: list[str] = field(default_factory=list)
    """Types that make up the image."""
    input_labels: list[str] = field(default_factory=list)
    """Types that make up the label, in order."""
    one_hot_num_classes: dict[str, Positive] = field(default_factory=dict)
    """Types that hold classes, and how many."""
    use_dont_care: bool = False
    """One more label channel for everything else."""
    num_classes: Positive | None = None
    """Sets with classes: how many the training set may have at most."""
    full_data_ops: str | None = None
    """Of rename_inputs, move_dont_care, make_one_hot and concat_labels, comma-separated, those that are done, in this
    order; without it the last two. Without make_one_hot, classes stay numbers."""
    move_dont_care: dict[str, Count] = field(default_factory=dict)
    """Types and a number: that and all beyond become it."""
    rename_inputs: dict[str, str] = field(default_factory=dict)
    """Names in a batch, and the types that get them."""
    keypoint_data_types: list[str] = field(default_factory=list)
    """Types that hold key points, in JSON: lists of [x, y, ...]. They move as the pixels of the images do."""
    interpolator: Interpolator = "INTER_LINEAR"
    """OpenCV name, for the first resize of images."""
    reduced_jpeg: bool = False
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its sides where the image stays as large as what is made of it."""
    background: Color | None = field(default=None, metadata=ONLY_IF_SET)
    """Red, green and blue from 0 to 255, on which an image with alpha is laid where num_channels says 3, or 1 and it
    is gray. None: such an image is an error."""
    on_error: Literal["raise", "skip"] = "raise"
    """A sample that cannot be read ends the run, or is logged, counted and skipped."""
    val_data_loader_not_distributed: bool = False
    """Every rank reads the whole validation set."""
    cache: Cache | None = None
    """Object stores: None reads every object from the store each time."""
    aws_credentials_file: str | None = None
    """S3: a JSON file of arguments for boto3's client, secrets included; None takes what boto3 finds by itself."""
    storage_options: dict[str, Any] = field(default_factory=dict)
    """Object stores: arguments of boto3's client (S3) or of fsspec's file system (other URLs), without secrets."""
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    own: Own = field(default_factory=dict)
    """Those that the splits take from here."""


@dataclass(frozen=True, kw_only=True)
class Cudnn:
    """How cuDNN chooses its algorithms."""

    deterministic: bool = False
    benchmark: bool = True


@dataclass(frozen=True, kw_only=True)
class Run:
    """How long a run lasts, what it writes, and when; and the sections that all methods share."""

    logging_iter: Positive = 100
    """Iterations between two log lines."""
    image_save_iter: Positive = BIG
    """Iterations between two images of the training that are kept."""
    image_display_iter: Positive = BIG
    """Iterations between two versions of images/current.jpg."""
    snapshot_save_iter: Positive = BIG
    """Iterations between two checkpoints."""
    snapshot_save_start_iter: Count = 0
    snapshot_save_epoch: Positive = BIG
    """Epochs between two checkpoints."""
    snapshot_save_start_epoch: Count = 0
    keep_last: Positive | None = None
    """How many of the latest checkpoints stay; None: all."""
    keep_every: Positive | None = None
    """With keep_last: checkpoints of the multiples of so many iterations stay, too."""
    metrics: Annotated[list[Any], Section(METRIC)] = field(default_factory=lambda: ["l1", "psnr", "l1_changed"])
    """What generated images are scored by on the held-out set."""
    keep_best: str | None = None
    """The checkpoint with the best held-out value of the metric of this name stays, too; best_checkpoint.txt names
    it."""
    metrics_iter: Positive | None = None
    """Iterations between two evaluations; None takes snapshot_save_iter."""
    metrics_epoch: Positive | None = None
    """Epochs between two evaluations; None takes snapshot_save_epoch."""
    max_iter: Count = BIG
    max_epoch: Count = BIG
    speed_benchmark: bool = False
    """Measure how long each part of an iteration takes (slows training down a little)."""
    pretrained_weight: str = ""
    inference_args: dict[str, Any] = field(default_factory=dict)
    cudnn: Cudnn = Cudnn()
    data: Data
    test_data: Data | None = None
