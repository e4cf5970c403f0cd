"""`python scripts/build_lmdb.py ...` is `imagier data build lmdb ...`."""

import sys

from imagier.cli import main

sys.exit(main(["data", "build", "lmdb", *sys.argv[1:]]))
