"""`python evaluate.py ...` is `imagier evaluate ...`."""

import sys

from imagier.cli import run_script

sys.exit(run_script("evaluate"))
