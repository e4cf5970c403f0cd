"""The keys of a config that every method has: type, default, meaning. And the kinds of components it can name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from imagier.config.augmentation_keys import Augmentations
from imagier.config.find import Kind
from imagier.ranges import Count, Decay, NonNegative, Positive, PositiveFloat

BIG = 1_000_000_000
"""Never."""


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
    """The schedule."""
    iteration_mode: bool = False
    """Count time in iterations instead of epochs."""
    warmup: Count = 0
    """Time at the start in which the rate rises linearly from 0 (Goyal et al. 2017, section 2.2). [epochs or
    iterations]"""


SCHEDULE = Kind("schedule", "Schedule", "schedules", "imagier.train.schedule:Schedule", LrPolicy)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How the weights of a player are updated; the keys of the optimizer that `type` names stand beside these."""

    type: str = "adam"
    """The optimizer: one of ours, or one of torch.optim by its name in small letters."""
    lr: NonNegative = 1e-4
    """Learning rate, before lr_policy multiplies it."""
    lr_policy: Annotated[Any, Section(SCHEDULE)] = None
    """The learning rate over time; null: constant."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest L2 norm of the gradient of the whole network; a longer gradient is scaled down. Null: any."""
    skip_grad: bool = False
    """Skip an update whose gradient norm is above clip_grad_norm, instead of clipping it."""


OPTIMIZER = Kind("optimizer", "Optimizer", "optimizers", "torch.optim:Optimizer", Optimizer)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What all metrics can be told; the keys of the one that `type` names stand beside these."""

    type: str
    """The metric. Its name alone stands for a section with this key."""
    optional: bool = False
    """Train without it, with a line that says so, if the weights of its network cannot be had."""


METRIC = Kind("metric", "Metric", "metrics", "imagier.metrics.metric:AnyMetric", Metric, tuples=("needs",))
METRICS = ("l1", "psnr", "l1_changed")
"""Those of a config that names none."""


@dataclass(frozen=True, kw_only=True)
class ModelAverage:
    """The running averages of networks. That of the generator makes the images."""

    enabled: bool = False
    """Keep averages."""
    players: list[str] | None = None
    """The players that have one; null: the generator alone."""
    beta: Decay = 0.9999
    """Weight of the past in the average, per update of the network."""
    start_iteration: Count = 1000
    """During so many updates the average equals the weights. [updates]"""
    num_batch_norm_estimation_iterations: Count = 30
    """Batches on which the batch norm statistics of the generator's average are measured, if it has any. [batches]"""
    remove_sn: bool = True
    """Average the normalized weights of layers with a spectral norm."""
    g_smooth_img: PositiveFloat | None = None
    """Half-life of the average; replaces beta. [images]"""


@dataclass(frozen=True, kw_only=True)
class BiasInit:
    """First values of biases."""

    type: Literal["normal"] = "normal"
    """The distribution: normal, with mean 0."""
    gain: NonNegative = 0.5
    """Standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Init:
    """First values of weights."""

    type: Literal["normal", "xavier", "xavier_uniform", "kaiming", "kaiming_linear", "orthogonal", "none"] = "none"
    """How weights are drawn. normal: with standard deviation gain. xavier, xavier_uniform: Glorot & Bengio 2010.
    kaiming, kaiming_linear: He et al. 2015, fan in, for a leaky ReLU or no nonlinearity. orthogonal: Saxe et al. 2014.
    none: torch's own values, of biases too."""
    gain: PositiveFloat = 0.02
    """Standard deviation (normal), or factor of the method's own."""
    bias: BiasInit | None = None
    """First values of biases; null: 0."""


@dataclass(frozen=True, kw_only=True)
class Amp:
    """Half precision, and the loss scaler of fp16."""

    enabled: bool = False
    """Half precision where the device is faster in it; `precision` may say otherwise."""
    init_scale: PositiveFloat = 65536.0
    """fp16: first factor of the loss."""
    growth_factor: Annotated[float, Field(gt=1)] = 2.0
    """fp16: what the factor is multiplied by after growth_interval updates in a row with finite gradients."""
    backoff_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """fp16: what the factor is multiplied by after a gradient that is not finite."""
    growth_interval: Positive = 2000
    """fp16: updates in a row with finite gradients after which the factor grows. [updates]"""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What all trainings have in common; the keys of the recipe that `type` names stand beside these."""

    type: str
    """The method."""
    model_average_config: ModelAverage = ModelAverage()
    init: Init = Init()
    amp_config: Amp = Amp()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that networks compute in. auto follows amp_config.enabled: bf16 where the device is faster in it, fp16 on
    other GPUs, else fp32."""
    tf32: bool = True
    """On NVIDIA GPUs that can, convolutions and products of matrices in fp32 take only 10 bits of what they multiply
    (TF32); sums and all else stay fp32."""
    channels_last: bool = False
    """Keep images as N x H x W x C in memory; faster for some networks and devices: `imagier tune` measures it."""
    winograd: bool = True
    """fp32 on CPUs: compute wide convolutions of 3 x 3 and 5 x 5 kernels by Winograd's algorithm where that is faster.
    Its rounding errors are up to 6 times larger. Not with reference_order, nor with --compile."""
    subpixel: bool = True
    """On CPUs: compute a convolution after nearest-neighbor upsampling before it (sub-pixel convolution), where that is
    faster. Not with reference_order."""
    accumulate: Positive = 1
    """Batches whose gradients are added up before an update. [batches]"""
    checkpoint_activations: list[str] = field(default_factory=list)
    """Players whose networks keep only the inputs of their blocks, and compute the rest again for the gradient: less
    memory, more time, the same results."""
    on_nonfinite: Literal["skip", "rollback", "stop"] = "skip"
    """What follows a gradient that is not finite; it is never applied. skip: continue; rollback: continue from the last
    checkpoint with other data; stop: end the run."""
    strict_resume: bool = True
    """A checkpoint must fit the networks exactly. false: what fits of it is taken, and the rest is logged."""
    image_to_tensorboard: bool = True
    """Show the kept images of the training in TensorBoard, too."""


DEFAULT_DATASET = "paired_images"

_NAMES = ("players", "required_inputs", "normalized_inputs", "instance_inputs", "steps_keys", "data_keys")

RECIPE = Kind("model", "Recipe", "models", "imagier.recipe:Recipe", Trainer, tuples=_NAMES)
DATASET = Kind("data set type", "Dataset", "data", "imagier.data.dataset:Dataset", tuples=("required_input_types",))
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
    """image, mask, class_map, keypoints, openpose, face_landmarks, flow, unprojections or a dotted path; null follows
    is_mask, one_hot_num_classes and keypoint_data_types."""
    ext: str | None = None
    """File extension without dot, compared literally."""
    num_channels: Positive | None = None
    """Channels of a file; needed where the type is part of the image or of the label. Null: any. [channels]"""
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


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a data set: train, val or test. Keys of the data set's own may stand next to these."""

    roots: list[str]
    """Folders, LMDBs, shard sets or URLs of an object store that hold the files."""
    root_weights: list[PositiveFloat] | None = None
    """train: how often a sample is drawn from each root, in the order of `roots`; null takes all samples alike."""
    batch_size: Positive = 1
    """Samples per process and update. [samples]"""
    augmentations: Augmentations
    """Changes of a sample, one resize first, then in the order of the file."""
    shuffle: Literal["samples", "shards"] = "samples"
    """train: an epoch's order is one of all samples, or one of shards with the samples of a few mixed, which reads each
    shard once."""
    dataset_type: Literal["folder", "lmdb", "shards", "object_store"] | None = None
    """What the roots are; null looks at them."""
    is_lmdb: bool = False
    """The roots are LMDBs, if dataset_type is not given."""
    type: str | None = None
    """val: the type of a data set that reads it in another way; input_types and input_image must then be given too."""
    input_types: list[dict[str, InputType]] | None = None
    """val, with a type of its own: as data.input_types."""
    input_image: list[str] | None = None
    """val, with a type of its own: as data.input_image."""
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
    """The most that it may take, in units of 10**9 bytes. [gigabytes]"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which files there are, and how they form a sample. Keys of the data set that `type` names stand next to these."""

    name: str = "data"
    """What the data set is called in W&B."""
    type: str = DEFAULT_DATASET
    """The type of data set: which files form a sample."""
    num_workers: Count | None = None
    """Processes that read data, per rank; None: as many as the machine has cores for, up to 8; 0: the training itself
    reads. [processes]"""
    persistent_workers: bool = False
    """Keep the reading processes from one epoch to the next instead of starting new ones."""
    input_types: list[dict[str, InputType]]
    """The kinds of files, each under a name of your choice, unless the method needs certain names."""
    input_image: list[str] = field(default_factory=list)
    """Types that make up the image."""
    input_labels: list[str] = field(default_factory=list)
    """Types that make up the label, in order."""
    one_hot_num_classes: dict[str, Positive] = field(default_factory=dict)
    """Types that hold classes, and how many. [classes]"""
    use_dont_care: bool = False
    """One more label channel for everything else."""
    num_classes: Positive | None = None
    """Data sets with classes: how many the training set may have at most; null: any number. [classes]"""
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
    """Local copies of what was read from an object store; null reads every object from the store each time."""
    aws_credentials_file: str | None = None
    """S3: a JSON file of arguments for boto3's client, secrets included; null takes what boto3 finds by itself."""
    storage_options: dict[str, Any] = field(default_factory=dict)
    """Object stores: arguments of boto3's client (S3) or of fsspec's file system (other URLs), without secrets."""
    train: Split | None = None
    """One part of the data set: train, val (held out) or test. Keys of the data set's own may stand next to these."""
    val: Split | None = None
    test: Split | None = None
    own: Own = field(default_factory=dict)
    """Those that the splits take from here."""


@dataclass(frozen=True, kw_only=True)
class Cudnn:
    """How cuDNN chooses its algorithms."""

    deterministic: bool = False
    """Only algorithms that give the same bits every time."""
    benchmark: bool = True
    """Try several algorithms for each size of input, and take the fastest."""


AUTO = "auto"
"""As keep_best: the first metric."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How long a run lasts, what it writes, and when; and the sections that all methods share."""

    logging_iter: Positive = 100
    """Time between two log lines. [iterations]"""
    image_save_iter: Positive = BIG
    """Time between two images of the training that are kept. [iterations]"""
    image_display_iter: Positive = BIG
    """Time between two versions of images/current.jpg. [iterations]"""
    snapshot_save_iter: Positive = BIG
    """Time between two checkpoints. [iterations]"""
    snapshot_save_start_iter: Count = 0
    """Time before which snapshot_save_iter writes no checkpoint. [iterations]"""
    snapshot_save_epoch: Positive = BIG
    """Time between two checkpoints at the end of epochs. [epochs]"""
    snapshot_save_start_epoch: Count = 0
    """Time before which snapshot_save_epoch writes no checkpoint. [epochs]"""
    keep_last: Positive | None = None
    """How many of the latest checkpoints stay; null: all. [checkpoints]"""
    keep_every: Positive | None = None
    """With keep_last: checkpoints of the multiples of so many iterations stay, too; null: none. [iterations]"""
    metrics: Annotated[list[Any], Section(METRIC)] = field(default_factory=lambda: list(METRICS))
    """What generated images are scored by on the held-out set."""
    keep_best: str | None = AUTO
    """The checkpoint with the best held-out value of the metric of this name stays, too; best_checkpoint.txt names it.
    auto: of the first of `metrics`, if there is a held-out set; null: no such checkpoint."""
    metrics_iter: Positive | None = None
    """Time between two evaluations; null takes snapshot_save_iter. [iterations]"""
    metrics_epoch: Positive | None = None
    """Time between two evaluations at the end of epochs; null takes snapshot_save_epoch. [epochs]"""
    max_iter: Count = BIG
    """When the training ends. [iterations]"""
    max_epoch: Count = BIG
    """When the training ends, if max_iter does not end it earlier. [epochs]"""
    speed_benchmark: bool = False
    """Measure how long each part of an iteration takes (slows training down a little)."""
    pretrained_weight: str = ""
    """Google Drive id of a checkpoint of the reference, which is not downloaded: `imagier infer` says where to put the
    file."""
    inference_args: dict[str, Any] = field(default_factory=dict)
    """What the method's `infer` is given to make images; each method has its own keys."""
    cudnn: Cudnn = Cudnn()
    data: Data
    """The files, and how they form samples."""
    test_data: Data | None = None
    """The data of `imagier infer`, with the keys of `data`; null takes data.test, or else data.val."""
