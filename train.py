"""`python train.py ...` is `imagier train ...`."""

import sys

from imagier.cli import run_script

sys.exit(run_script("train"))
