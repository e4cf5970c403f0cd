"""`python scripts/build_index.py ...` is `imagier data index ...`."""

import sys

from imagier.cli import main

sys.exit(main(["data", "index", *sys.argv[1:]]))
