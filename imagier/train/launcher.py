"""Which ranks there are, and where they meet: what the environment of torchrun or of a Slurm step says."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from imagier.errors import UserError

_CODE = "bad-environment"

_ADVICE = "start with torchrun, or run alone (`single_process=True`)"

PORTS = range(10000, 30000)
"""Where the ranks of a Slurm step meet: below what systems give to outgoing connections."""


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that were started together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    rendezvous: tuple[str, int] | None = None
    """Host and port where a Slurm step's ranks meet; None: MASTER_ADDR and MASTER_PORT of a launcher say it."""


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """What a launcher says; else what Slurm says of a step of several processes (`srun -n 2 imagier train ...`).

    UserError if the variables contradict each other.
    """
    if environment.get("WORLD_SIZE"):
        launch = Launch(
            read_number("RANK", 0, environment),
            read_number("WORLD_SIZE", 1, environment),
            read_number("LOCAL_RANK", 0, environment),
        )
        if launch.world > 1:
            _check_rendezvous(environment, launch.world)
    elif read_number("SLURM_STEP_NUM_TASKS", 1, environment) > 1:  # only srun sets it, and neither sbatch nor salloc
        launch = _read_step(environment)
    else:
        return Launch(local_rank=read_number("LOCAL_RANK", 0, environment))
    if launch.rank >= launch.world:
        what = f"the environment's WORLD_SIZE is {launch.world}, and RANK {launch.rank}, which must be less"
        raise UserError(what, advice="start with torchrun, or unset them", code=_CODE)
    return launch


def read_number(name: str, default: int, environment: Mapping[str, str] = os.environ) -> int:
    """A number of a launcher's environment. UserError if it is none."""
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        what = f"the environment's {name} is {text!r}, not a number"
        raise UserError(what, advice="start with torchrun, or unset it", code=_CODE)
    return int(text)


def count_local_ranks(world: int, environment: Mapping[str, str] = os.environ) -> int:
    """The ranks on this machine; all, if nothing says how many."""
    if environment.get("LOCAL_WORLD_SIZE"):
        return max(1, read_number("LOCAL_WORLD_SIZE", world, environment))
    of_nodes = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "")) if world > 1 else None
    return int(of_nodes[0]) if of_nodes else world


def _check_rendezvous(environment: Mapping[str, str], world: int) -> None:
    """UserError unless the environment says where ranks meet."""
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]:
        what = f"the environment's WORLD_SIZE is {world}, but it has no {', '.join(missing)}"
        raise UserError(what, advice=_ADVICE, code="no-rendezvous")
    port, host = read_number("MASTER_PORT", 0, environment), environment["MASTER_ADDR"]
    if not 0 < port < 2**16:
        what = f"the environment's MASTER_PORT is {port}, but ports are 1 to 65535"
        raise UserError(what, advice=_ADVICE, code=_CODE)
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        what = f"the environment's MASTER_ADDR is {host!r}, but no such host is known ({error})"
        raise UserError(what, advice=_ADVICE, code=_CODE) from error


def _read_step(environment: Mapping[str, str]) -> Launch:
    """The place of a process that `srun` started among those of its step."""
    world = read_number("SLURM_STEP_NUM_TASKS", 1, environment)
    job, step = read_number("SLURM_JOB_ID", 0, environment), read_number("SLURM_STEP_ID", 0, environment)
    is_near = read_number("SLURM_STEP_NUM_NODES", 1, environment) == 1
    host = "localhost" if is_near else _first_host(environment.get("SLURM_STEP_NODELIST", ""))
    return Launch(
        read_number("SLURM_PROCID", 0, environment),
        world,
        read_number("SLURM_LOCALID", 0, environment),
        (
            environment.get("MASTER_ADDR") or host,
            read_number("MASTER_PORT", PORTS[(7 * job + step) % len(PORTS)], environment),
        ),
    )


def _first_host(hosts: str) -> str:
    """The first of a list as Slurm writes it: of "gpu[03-05,9],cpu1", gpu03; of "rack[1-2]n[3-4]", rack1n3."""
    found = re.match(r"(?:[^\[,]|\[\d[^\]]*\])+", hosts)
    if found is None:
        what = f"the environment's SLURM_STEP_NODELIST is {hosts!r}, not a list of hosts"
        raise UserError(what, advice=_ADVICE, code=_CODE)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0])
