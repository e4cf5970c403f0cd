"""`imagier export`: a trained generator as files that run without Imagier."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import parse_writable_folder
from imagier.cli.imports import import_quickly
from imagier.cli.tables import print_table
from imagier.run import status

FORMATS = ("onnx", "pt2", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    source = "folder of a run, one of its checkpoints, or a bundle (also hub:USER/NAME)"
    add("source", type=Path, metavar="LOGDIR_OR_CHECKPOINT", help=source)
    add("--out", type=parse_writable_folder, required=True, metavar="DIR", help="the folder to make")
    formats = "files to write (default: all): ONNX, torch.export, and weights with the constructor's arguments"
    add("--format", nargs="+", default=FORMATS, metavar="|".join(FORMATS), help=formats)
    add("--fp16", action="store_true", help="also write an ONNX file that computes in float16")
    add(
        "--int8", action="store_true", help="also write an ONNX file that computes in int8, calibrated on held-out data"
    )
    style = "where the style comes from, if the method can take it from both (default: a code, that is random numbers)"
    add("--style", choices=("code", "image"), help=style)
    add("--license", metavar="ID", help="of the weights, for the model card (cc-by-sa-4.0, apache-2.0, ...)")
    add("--push", metavar="USER/NAME", help="upload the bundle to the Hub, where all can see it")
    add("--config", type=Path, help="only for a checkpoint that has no config.yaml beside it")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the bundle and prints what is in it; returns the exit status."""
    with import_quickly():
        from imagier.run.bundle.export import export

    formats = [word for word in args.format if "=" not in word]  # argparse gives it the overrides that follow
    overrides = [*args.overrides, *(word for word in args.format if "=" in word)]
    made = export(
        args.source,
        args.out,
        formats=formats,
        fp16=args.fp16,
        int8=args.int8,
        style=args.style,
        license=args.license,
        config=args.config,
        push=args.push,
        overrides=overrides,
    )
    rows = [["file", "MB", "largest difference", "seconds an image"]]
    for of in made["files"].values():
        difference = f"{of['max_difference']:.1e}" if "max_difference" in of else ""
        if "max_difference_255" in of:
            difference = f"{of['max_difference_255']} of 255, mean {of['mean_difference_255']}"
        seconds = f"{of['seconds']:.4f}" if "seconds" in of else ""
        rows.append([of["path"], f"{of['bytes'] / 1e6:.2f}", difference, seconds])
    print_table([*rows, ["torch", "", "", f"{made['torch_seconds']:.4f}"]])
    print(f"{args.out}: {made['method']}, iteration {made['iteration']:,}, {made['weights']} weights")
    return status.DONE
