"""How much `imagier data check --quick` reads."""

QUICK_FILES, QUICK_SECONDS = 200, 3.0
