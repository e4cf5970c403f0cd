"""`python -m imagier` is `imagier`."""

import sys

from imagier.cli import main

sys.exit(main())
