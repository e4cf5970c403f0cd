"""Limits of `imagier data check --quick`."""

QUICK_FILES, QUICK_SECONDS = 200, 3.0
