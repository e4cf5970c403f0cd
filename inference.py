"""`python inference.py ...` is `imagier infer ...`."""

import sys

from imagier.cli import run_script

sys.exit(run_script("infer"))
