"""What the report of a run says, beside what is in its log: facts, and the commands that can be used with the run."""

from __future__ import annotations

import platform
import shlex
from importlib.metadata import PackageNotFoundError, version

from imagier.run.experiment import CONFIG
from imagier.run.session import Session
from imagier.train.hooks.report_file import About
from imagier.train.launcher import count_local_ranks

_PACKAGES = ("imagier", "torch", "numpy", "opencv-python-headless")


def describe_run(session: Session) -> About:
    """The facts of a run that is about to start."""
    config, options, trainer, training = session.config, session.options, session.trainer, session.training
    recipe = trainer.recipe
    held_out = session.held_out
    facts = {
        "method": config.trainer.type,
        "parameters": ", ".join(
            f"{name} {sum(p.numel() for p in network.parameters()):,}" for name, network in recipe.networks.items()
        ),
        "samples": f"{len(training.dataset):,}"
        + (f", {len(held_out.dataset):,} held out" if held_out is not None else ""),
        "batch": f"{training.batch_size} x {training.world} ranks" if training.world > 1 else str(training.batch_size),
        "seed": str(session.plan.seed),
        "versions": ", ".join(f"{name} {find_version(name)}" for name in _PACKAGES),
        "python": platform.python_version(),
    }
    return About(
        command=options.command,
        total_steps=session.total_steps,
        from_step=trainer.step,
        facts=facts,
        commands=list_commands(session),
        config=config.dump(),
        scores=session.scores,
    )


def list_commands(session: Session) -> dict[str, str]:
    """What can be done with a run: the command by its purpose."""
    data = session.config.run.data
    logdir = shlex.quote(str(session.plan.logdir))
    config = shlex.quote(str(session.plan.logdir / CONFIG))
    commands = {
        "continue": f"{format_launch(session.runtime.world)} train --logdir {logdir}",
        "images of your own inputs": f"imagier infer --logdir {logdir} --input FOLDER --output_dir OUT",
    }
    if data.test is not None or data.val is not None or session.config.run.test_data is not None:
        commands["images of the test set"] = f"imagier infer --logdir {logdir} --output_dir OUT"
    if data.val is not None:
        code = f"from imagier.run import evaluate; print(evaluate({str(session.plan.logdir)!r}))"
        commands["scores of the latest checkpoint"] = f"python -c {shlex.quote(code)}"
    return {
        **commands,
        "check the data": f"imagier data check {config} --html check.html",
        "look at the data": f"imagier data preview {config} preview.html",
        "prove that it resumes exactly": f"imagier verify-resume {config}",
    }


def format_launch(world: int) -> str:
    """What starts imagier on so many ranks, on machines of as many as this one has."""
    if world == 1:
        return "imagier"
    local = count_local_ranks(world)
    nodes = f"--nnodes {world // local} --rdzv_backend c10d --rdzv_endpoint HOST:29500 " if local < world else ""
    return f"torchrun {nodes}--nproc_per_node {local} -m imagier"


def find_version(name: str) -> str:
    """The version of a distribution; "?" if it is not installed (opencv-python may take the place of another)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
