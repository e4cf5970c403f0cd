"""Puts the generator of a run into the zoo: `python scripts/make_zoo.py logs/openmoji64 openmoji --license ID`.

Its bundle is kept in imagier/tools/page/zoo/NAME, with weights of 16 bits: half of the size, for a difference that
bundle.json states. Then `imagier demo NAME` serves it anywhere. tests/tools/page/test_zoo.py checks what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from imagier.run import export
from imagier.tools.page.bundle import FACTS, ZOO, Bundle

SAMPLES = 6


def main() -> None:
    """Makes the bundle, and keeps what the page and its reader need."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--license", required=True, help="of the weights, as the Hub calls it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, args.name)
        export(args.logdir, bundle, formats=["onnx"], fp16=True, license=args.license)
        facts = json.loads((bundle / FACTS).read_text())
        onnx, half = facts["files"]["onnx"]["path"], facts["files"]["onnx_fp16"]
        (bundle / half["path"]).replace(bundle / onnx)
        facts |= {"name": args.name, "files": {"onnx": half | {"path": onnx}}, "samples": facts["samples"][:SAMPLES]}
        target = ZOO / args.name
        shutil.rmtree(target, ignore_errors=True)
        Bundle(bundle, facts).copy_files(target)
        (target / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{target}: {sum(path.stat().st_size for path in target.rglob('*')) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
