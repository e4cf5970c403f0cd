"""`python inference.py ...` is `imagier infer ...`."""

import sys

from imagier.cli import script

sys.exit(script("infer"))
