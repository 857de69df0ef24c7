"""Run by the emulated Python: write an artifact's logits of an evaluation set's first images to a file.

python answer.py ARTIFACT EVALSET COUNT OUTPUT.npy
"""

import sys
from pathlib import Path

import numpy as np

from runtimes import environment, evalset
from runtimes.artifact import Artifact
from runtimes.measure import evaluate
from runtimes.target import Target

path, folder, count, output = sys.argv[1:]
assert environment.detect_instruction_set() == "arm64"
images = evalset.load(Path(folder)).head(int(count))
np.save(output, evaluate(Artifact.load(Path(path)), Target("arm64", instruction_set="arm64"), images))
