"""What a process runs on: device, ranks, precision, random sources. The only file that knows the names of devices."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from imagier.errors import UserError
from imagier.train.launcher import Launch, read_launch, read_number

T = TypeVar("T")

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

_LOST_CONTACT = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""Words by which errors of the communication with other ranks are recognized."""

LAST_OPERATION_S = 0.2
"""How long a process group may need to release its last operation; usually microseconds."""


@dataclass
class Runtime:
    """One process of a run."""

    device: torch.device
    precision: Precision = "fp32"
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    control: dist.ProcessGroup | None = None
    """Group for decisions, always on the CPU, so that agreeing never waits for an accelerator."""
    gradients: dist.ProcessGroup | None = None
    """Group for gradients, which may overtake what else is sent between devices."""
    owns_process_group: bool = False
    """Whether `start` joined torch's default process group, so that `stop` has to leave it."""
    previous_gpu: int = 0
    """The GPU that was torch's current one before `start`, for `stop`."""

    @property
    def pins_memory(self) -> bool:
        """Whether batches should be read into pinned memory, from where copying to the device does not wait."""
        return self.device.type == "cuda"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs messages for the user."""
        return self.rank == 0

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the process continues, so that reading a result means waiting."""
        return self.device.type != "cpu"

    @property
    def captures_graphs(self) -> bool:
        """Whether the device can replay what it once did (CUDA graphs), with numbers that lie in its own memory."""
        return self.device.type == "cuda"

    def to_host_async(self, values: Tensor) -> Callable[[], list[float]]:
        """Starts to copy a tensor [n] to the host. The result waits for the copy, no longer, and returns the values."""
        if self.device.type != "cuda":
            return values.tolist
        on_host = torch.empty_like(values, device="cpu", pin_memory=True)
        on_host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def wait() -> list[float]:
            copied.synchronize()
            return on_host.tolist()

        return wait

    def record_event(self) -> Callable[[], None]:
        """Returns a function that waits, in any thread, until the device has done everything it was given so far."""
        if self.device.type != "cuda":
            self.synchronize()
            return lambda: None
        mark = torch.cuda.Event(blocking=True)
        mark.record(torch.cuda.current_stream(self.device))
        return mark.synchronize

    def make_copy_stream(self) -> CopyStream | None:
        """What copies batches to the device while it computes; None for a device that needs no copies."""
        return CopyStream(self.device) if self.device.type == "cuda" else None

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which networks and losses run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def full_precision(self) -> AbstractContextManager[object]:
        """Undoes `autocast` while it is open."""
        return torch.autocast(self.device.type, enabled=False)

    def generator(self, *numbers: int) -> torch.Generator:
        """A source of random numbers on the device that depends only on `numbers` and on this rank."""
        return self.reseed(torch.Generator(self.device), *numbers)

    def reseed(self, rng: torch.Generator, *numbers: int) -> torch.Generator:
        """Makes a source give what a new one of these numbers would give; returns it."""
        return rng.manual_seed(derive_seed(*numbers, self.rank))

    def seed(self, *numbers: int) -> None:
        """Seeds the device's global source, for layers that draw from it (dropout), by `numbers` and this rank."""
        seed = derive_seed(*numbers, self.rank)
        # Not torch.manual_seed: it notes a stack trace for devices that are not in use, half a millisecond each time.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def all_reduce_max(self, value: int) -> int:
        """The largest value of all ranks, on every rank."""
        return self.all_reduce_max_async(value)()

    def all_reduce_max_async(self, value: int) -> Callable[[], int]:
        """Begins to find the largest value of all ranks; what it returns waits for it."""
        if self.world == 1:
            return lambda: value
        shared = torch.tensor([value])
        work = dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self.control, async_op=True)

        def wait() -> int:
            work.wait()
            return int(shared.item())

        return wait

    def all_reduce_sum(self, value: int) -> int:
        """The sum of the values of all ranks, on every rank."""
        if self.world == 1:
            return value
        shared = torch.tensor([value])
        dist.all_reduce(shared, group=self.control)
        return int(shared.item())

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        if self.world > 1:
            dist.barrier(group=self.control)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all ranks, in place; all ranks need the same shape."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def broadcast(self, value: T) -> T:
        """The value of the first rank, on every rank. Any object that can be pickled."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def all_gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """The rows of all tensors of all ranks, concatenated, on the CPU; ranks may have different numbers of them."""
        of_ranks = self.all_gather_objects([tensor.cpu() for tensor in tensors])
        return torch.cat([tensor for of_rank in of_ranks for tensor in of_rank])

    def all_gather_objects(self, value: T) -> list[T]:
        """The values of all ranks, in their order. Any objects that can be pickled."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def synchronize(self) -> None:
        """Waits until the device has done everything it has been given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def peak_memory_bytes(self) -> int:
        """The most memory in use so far: the accelerator's, or the process's."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def describe(self) -> str:
        """Device, precision and ranks in a few words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else _cpu_name()
        ranks = f", rank {self.rank} of {self.world}" if self.world > 1 else ""
        return f"{self.device.type} ({name}), {self.precision}{ranks}"


class CopyStream:
    """Copies to a device while it computes, on a stream of its own. From pinned memory, the CPU does not wait."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
        """Starts to copy. The result makes the device wait for the end of the copy, and returns the copies."""
        with torch.cuda.stream(self.stream):
            copies = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        done = self.stream.record_event()

        def wait() -> dict[str, Tensor]:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(done)
            for copy in copies.values():
                copy.record_stream(computing)  # or the next copy could take their memory while it is still read
            return copies

        return wait


def start(device: str, *, single: bool, local_rank: int | None) -> Runtime:
    """Joins the process group of the environment, if there is one, and takes this process's device.

    A process group that the caller has joined before is used as it is. device: auto, cpu, cuda or mps. UserError if
    torch finds no such device.
    """
    is_joined = dist.is_initialized() and not single
    if is_joined:
        launch = Launch(dist.get_rank(), dist.get_world_size(), read_number("LOCAL_RANK", 0))
    else:
        launch = Launch(local_rank=read_number("LOCAL_RANK", 0)) if single else read_launch()
    rank, world = launch.rank, launch.world
    local = local_rank if local_rank is not None else launch.local_rank
    if launch.rendezvous is not None and torch.cuda.device_count() == 1:
        local = 0  # Slurm shows each process a GPU of its own
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    runtime = Runtime(_choose_device(device, local), rank=rank, world=world, local_rank=local, previous_gpu=gpu)
    if world > 1:
        if not is_joined:
            _join(runtime, launch)
        is_on_cpu = dist.get_backend() == "gloo"
        runtime.control = dist.group.WORLD if is_on_cpu else dist.new_group(backend="gloo")
        runtime.gradients = dist.new_group()
    return runtime


def _join(runtime: Runtime, launch: Launch) -> None:
    backend = "nccl" if runtime.device.type == "cuda" else "gloo"
    options: dict[str, Any] = {"timeout": timedelta(minutes=30)}
    url = "env://"
    if launch.rendezvous is not None:
        url = f"tcp://{launch.rendezvous[0]}:{launch.rendezvous[1]}"
        options |= {"rank": launch.rank, "world_size": launch.world}
    try:
        store, rank, world = next(dist.rendezvous(url, **options))
        # torchrun may keep its store over a restart, with the addresses of processes that are gone
        store = dist.PrefixStore(f"restart_{read_number('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=options["timeout"])
    except dist.DistError as error:
        reason = str(error).partition("\n")[0]
        what = f"rank {launch.rank} of {launch.world} does not find the others: {reason}"
        advice = "have all been started, with the same MASTER_ADDR and MASTER_PORT, and is that port free?"
        raise UserError(what, advice=advice, code="no-rendezvous") from error
    runtime.owns_process_group = True


def stop(runtime: Runtime) -> None:
    """Undoes `start`: leaves the process groups that it joined, and gives the current GPU back."""
    if runtime.device.type == "cuda":
        torch.cuda.set_device(runtime.previous_gpu)
    groups = [group for group in (runtime.control, runtime.gradients) if group is not None]
    runtime.control = runtime.gradients = None
    if runtime.owns_process_group:
        dist.destroy_process_group()
    else:
        for group in groups:
            if group is not dist.group.WORLD:
                dist.destroy_process_group(group)
    if groups:
        # A thread of a group may still hold its last operation, and with it the group, whose end in a thread of its
        # own aborts the process. So does one that outlives the interpreter. Hence they end here, a moment later.
        time.sleep(LAST_OPERATION_S)


def is_lost_contact(error: RuntimeError) -> bool:
    """Whether it is torch's error for a rank that has ended or cannot be reached."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST_CONTACT)


def choose_precision(asked: str, amp: bool, device: torch.device) -> tuple[Precision, str]:
    """The precision to train in, and why.

    asked: fp32, bf16, fp16, or auto: half precision if `amp` (the config's amp_config.enabled) and the device is faster
    in it.
    """
    if asked == "bf16" or asked == "fp32":
        return asked, "trainer.precision"  # type: ignore[return-value]
    if asked == "fp16":
        return "fp16", "trainer.precision, with a loss scaler"
    if not amp:
        return "fp32", "amp_config is off"
    if _has_bf16(device):
        return "bf16", "amp_config is on and this device computes in bfloat16"
    if device.type == "cuda":
        return "fp16", "amp_config is on and this device has no bfloat16"
    return "fp32", "amp_config is on, but this device is not faster in half precision"


@contextmanager
def restore_torch_state(runtime: Runtime) -> Iterator[None]:
    """After this context torch's random sources, cudnn's flags and, on a GPU, TF32 are as before it."""
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    tf32 = _read_tf32(runtime.device)
    of_cpu = torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state(runtime.device) if runtime.device.type == "cuda" else None
    of_mps = torch.mps.get_rng_state() if runtime.device.type == "mps" else None
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        if tf32 is not None:
            cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.set_rng_state(of_cpu)
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda, runtime.device)
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


def set_cudnn(*, deterministic: bool, benchmark: bool) -> None:
    """The config's section `cudnn`."""
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark


def set_tf32(allowed: bool, device: torch.device) -> None:
    """The config's `trainer.tf32`, which only GPUs have."""
    # Not by the newer fp32_precision: after it, reading these flags raises, as torch.compile does.
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def _read_tf32(device: torch.device) -> tuple[bool, bool] | None:
    """Whether convolutions and products of matrices may use TF32; None off GPUs. UserError if the newer API set it."""
    if device.type != "cuda":
        return None
    try:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    except RuntimeError as error:
        what, advice = "fp32_precision is set", "leave it alone, and set trainer.tf32 instead"
        raise UserError(what, where="torch.backends", advice=advice, code="two-settings") from error


def derive_seed(*numbers: int) -> int:
    """One 64-bit seed out of several numbers (numpy's SeedSequence: close inputs give unrelated seeds)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _choose_device(name: str, local_rank: int) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name, False):
        choices = ", ".join(kind for kind, there in available.items() if there)
        what = "torch finds no such device here"
        raise UserError(what, where=f"device {name}", advice=f"it has: {choices}", code="no-such-device")
    if name != "cuda":
        return torch.device(name)
    if local_rank >= torch.cuda.device_count():
        what = f"this machine has {torch.cuda.device_count()} GPUs"
        raise UserError(what, where=f"local rank {local_rank}", advice="start fewer ranks", code="too-few-gpus")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _cpu_name() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads"
