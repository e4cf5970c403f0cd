"""`imagier demo`: a page in which people give inputs, and see what the network makes of them."""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

from imagier.cli.arguments import add_device, parse_writable_folder
from imagier.cli.imports import import_quickly
from imagier.errors import UserError
from imagier.run import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    source = (
        "the folder that `imagier export` wrote, or `openmoji`: an example; with --gradio also the folder of a run, "
    )
    add("source", type=Path, metavar="SOURCE", help=source + "one of its checkpoints, or hub:USER/NAME")
    add("--gradio", action="store_true", help="a Gradio app, which computes here in Python: for all methods, clips too")
    add_device(parser)
    parser.set_defaults(device=None)
    add(
        "--out",
        type=parse_writable_folder,
        metavar="DIR",
        help="keep the page in this folder, for any web server (default: a temporary folder)",
    )
    add(
        "--port", type=int, default=8000, metavar="N", help="where to serve it; 0 for a free port (default %(default)s)"
    )
    host = "the address to serve it at (default %(default)s: for this machine only; 0.0.0.0: for everybody)"
    add("--host", default="127.0.0.1", help=host)
    add("--no-serve", action="store_true", help="only write the page to --out")


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C, or only writes it; returns the exit status."""
    if args.gradio:
        return _run_app(args)
    if args.device is not None:
        what, advice = "has no effect without --gradio: the browser computes", "leave it out"
        raise UserError(what, where="device", advice=advice, code="no-effect")
    from imagier.tools.page.bundle import read_bundle
    from imagier.tools.page.site import write_site

    bundle = read_bundle(args.source)
    if args.no_serve:
        if args.out is None:
            raise UserError("is needed with --no-serve", where="out", advice="name a folder", code="missing-flag")
        write_site(bundle, args.out)
        print(f"written: {args.out}")
        return status.DONE
    _end_by_sigterm()
    with tempfile.TemporaryDirectory(prefix="imagier_demo_") as temporary:
        folder = args.out or Path(temporary, "site")
        write_site(bundle, folder)
        _serve(folder, args.host, args.port)
    return status.DONE


def _run_app(args: argparse.Namespace) -> int:
    for flag, is_given in (("out", args.out is not None), ("no_serve", args.no_serve)):
        if is_given:
            what, advice = "has no effect with --gradio: the app needs Python", "leave it out"
            raise UserError(what, where=flag, advice=advice, code="no-effect")
    with import_quickly():
        from imagier.run.bundle.hub import find_local
        from imagier.tools.app.launch import serve_app

    _end_by_sigterm()
    serve_app(find_local(args.source), args.host, args.port, args.device or "auto")
    return status.DONE


def _end_by_sigterm() -> None:
    """Lets it do what Ctrl-C does, so that temporary folders go."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _serve(folder: Path, host: str, port: int) -> None:
    from imagier.tools.page.server import open_server

    with open_server(folder, host, port) as server:
        print(f"serving http://{host}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
