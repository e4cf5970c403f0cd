import os
import pathlib
import sys

# Before torch is imported, and for the processes that tests start: tests are small, and threads that wait for each
# other make them many times slower on a machine with other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

for folder in (".", "train"):
    sys.path.insert(0, str(pathlib.Path(__file__).parent / folder))
