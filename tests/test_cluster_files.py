"""The files for clusters in docs/: right for the program that reads them, with commands that Imagier understands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import doc_commands
import jsonschema
import kubernetes_validate
import pytest
import tiny
import yaml
from doc_sandbox import build
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from imagier.config.read import read
from imagier.run import status
from imagier.run.sweep_space import read_space
from imagier.run.sweep_trial import choose_objective
from imagier.train.hooks.evaluation import AVERAGE

ROOT = Path(__file__).parents[1]
SCHEMAS = Path(__file__).parent / "schemas"
OPENMOJI = "configs/spade/openmoji64.yaml"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(build(tmp_path))
    return tmp_path


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "docs/kubernetes/job.yaml").read_text()))


def container() -> dict[str, Any]:
    (one,) = kubernetes()[2]["spec"]["template"]["spec"]["containers"]
    return one


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"]}


def expand(line: str, names: dict[str, str]) -> list[str]:
    """The words of a line of shell, with the values of variables."""
    return shlex.split(re.sub(r"\$(\w+)", lambda found: names[found[1]], line.replace("\\\n", " ")))


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docs" / name).read_text())


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_its_objects(version: str) -> None:
    objects = kubernetes()
    assert [one["kind"] for one in objects] == ["Service", "PersistentVolumeClaim", "Job"]
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    objects[2]["spec"]["completionModes"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects[2], version, strict=True)


def test_what_names_something_in_the_job_names_what_is_there() -> None:
    service, claim, job = kubernetes()
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name} and pod["subdomain"] == service["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert environment()["RENDEZVOUS"] == f"{name}-0.{service['metadata']['name']}:{port}"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["logs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts.keys() == volumes.keys() and environment()["LOGDIR"].startswith(f"{mounts['logs']}/")
    assert int(environment()["MACHINES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(environment()["RANKS"]) == container()["resources"]["limits"]["nvidia.com/gpu"]
    assert int(environment()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert f"USER {pod['securityContext']['fsGroup']}\n" in (ROOT / "Dockerfile").read_text()


def test_the_job_fails_on_a_mistake_and_goes_on_after_an_interruption() -> None:
    rules = kubernetes()[2]["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"FailJob": [status.USER_ERROR], "Ignore": [status.INTERRUPTED]}
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {container()["name"]}


def test_the_commands_of_the_job_are_ours(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, _, *words = container()["args"]
    script = script.replace('"$@"', shlex.join(words)).replace("\\\n", " ")
    names = {**environment(), "is_host": "true"}
    lines = [line.strip() for line in script.splitlines() if re.match(r" *(imagier|torchrun) ", line)]
    assert len(lines) == 2
    for line in lines:
        argv = doc_commands.ours(expand(re.split(" > | &$", line)[0], names))
        assert argv is not None
        doc_commands.parse(argv, monkeypatch)


def test_skypilot_takes_its_task() -> None:
    schemas, task = json.loads((SCHEMAS / "skypilot.json").read_text()), load("skypilot/train.yaml")
    for document, name in ((task, "task"), (task["resources"], "resources")):
        jsonschema.validate(document, schemas[name])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, "use_spots": True}, schemas[name])
    for mount in task["file_mounts"].values():
        jsonschema.validate(mount, schemas["storage"])
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [status.INTERRUPTED]
    assert any(task["envs"]["LOGDIR"].startswith(f"{folder}/") for folder in task["file_mounts"])


def test_the_commands_of_the_task_are_ours(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load("skypilot/train.yaml")
    commands = [expand(line, task["envs"]) for part in ("setup", "run") for line in task[part].splitlines()]
    assert [words[:2] for words in commands] == [["pip", "install"], ["imagier", "data"], ["imagier", "train"]]
    for words in commands[1:]:
        doc_commands.parse(words[1:], monkeypatch)
    config, _ = read(Path(task["envs"]["CONFIG"]))
    made = commands[1][commands[1].index("--out") + 1]
    assert config.run.data.train is not None and config.run.data.train.roots[0].startswith(made)


def test_a_sweep_of_wandb_starts_trainings(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own functions make the command."""
    sweep = load("wandb/sweep.yaml")
    jsonschema.validate(sweep, json.loads((SCHEMAS / "wandb_sweep.json").read_text()))
    for ends in ("min", "max"):
        values = {
            key: {"value": spec.get(ends, (spec.get("values") or [0])[0])} for key, spec in sweep["parameters"].items()
        }
        macros = {**create_sweep_command_args({"args": values}), "program": [sweep["program"]]}
        words = create_sweep_command(list(sweep["command"]))
        words = [part for word in words for part in macros.get(word[2:-1] if word.startswith("${") else "", [word])]
        assert words[0] == "imagier" and len(words) == len(sweep["command"]) - 1 + len(values)
        doc_commands.parse(words[1:], monkeypatch)
    config, _ = read(Path(sweep["command"][sweep["command"].index("--config") + 1]))
    objective = choose_objective(config, sweep["metric"]["name"].removesuffix(f"/{AVERAGE}"))
    assert sweep["metric"]["goal"] == ("maximize" if objective.higher_is_better else "minimize")


def test_the_space_of_the_documentation_is_one_of_its_config() -> None:
    config = ROOT / OPENMOJI
    assert len(read_space(ROOT / "docs/sweep/space.yaml", config, [])) == 4


def write_program(folder: Path, name: str, module: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
    (folder / name).chmod(0o755)


@pytest.mark.slow
def test_the_script_of_the_job_saves_continues_and_says_when_it_is_done(tmp_path: Path) -> None:
    """As a pod runs it, on one machine with two ranks."""
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"), max_iter=200, logging_iter=1)
    for name, module in (("imagier", "imagier"), ("torchrun", "torch.distributed.run")):
        write_program(tmp_path / "bin", name, module)
    logdir = tmp_path / "logs"
    names = {**environment(), "CONFIG": str(config), "LOGDIR": str(logdir), "MACHINES": "1", "RANKS": "2"}
    names |= {"RENDEZVOUS": "localhost:0", "JOB_COMPLETION_INDEX": "0", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    script, name, *_ = container()["args"]

    def start(*words: str) -> subprocess.Popen[str]:
        command = ["/bin/bash", "-c", script, name, "--device", "cpu", "data.num_workers=0", *words]
        return subprocess.Popen(command, env={**os.environ, **names}, text=True, stderr=subprocess.PIPE)

    assert start("gen.num_filterz=3").wait(300) == status.USER_ERROR
    pod = start()
    end = time.monotonic() + 300
    while not (logdir / "metrics.jsonl").exists() or not (logdir / "metrics.jsonl").read_text():
        assert pod.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(300) == status.INTERRUPTED
    assert list(logdir.glob("*_checkpoint.pt")), "it was saved before the pod's end"
    begun = json.loads((logdir / "report.json").read_text())["step"]
    assert start(f"max_iter={begun + 1}").wait(300) == status.DONE
    assert json.loads((logdir / "report.json").read_text())["state"] == "finished"
    before = time.monotonic()
    assert start().wait(300) == status.DONE
    assert time.monotonic() - before < 2, "no rank is started again"
