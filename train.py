"""`python train.py ...` is `imagier train ...`."""

import sys

from imagier.cli import script

sys.exit(script("train"))
