import pathlib
import sys

for folder in (".", "train"):
    sys.path.insert(0, str(pathlib.Path(__file__).parent / folder))
