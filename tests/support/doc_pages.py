"""What the tests of pages share: code blocks, and the environment in which a page's commands run."""

import os
import re
import sys

import warm

from neas_tf.common.paths import project_file

# In place of the full settings: seconds instead of minutes.
TINY = """
space:
  stages: [[8, 2, 2]]
  operators: [k3e2, k5e2, skip]
  min_split: 1
  max_split: 1
  head_channels: 16
  feature_channels: 16
supernet: {epochs: 1.0, batch_size: 256, warmup_epochs: 0.0}
shrink: {every_epochs: 1.0, remove: 1, num_samples: 6, images: 32, batch_size: 32, min_pair_count: 1}
search: {population: 3, parents: 2, generations: 2, crossover: 1, mutation: 1,
  calibration_images: 64, calibration_batch: 64, validation_images: 64}
retrain: {epochs: 1.0, batch_size: 256, warmup_epochs: 0.0}
"""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def environment(**variables: str) -> dict[str, str]:
    neas = os.path.join(os.path.dirname(warm.python()), "neas")
    if not os.path.exists(neas):  # the entry point, where the package is not installed
        with open(neas, "w") as file:
            file.write(f'#!/bin/sh\nexec {warm.python()} -m neas_tf "$@"\n')
        os.chmod(neas, 0o755)
    return {
        **os.environ,
        "PYTHONPATH": project_file(),
        # `python` of the page is the Python of the tests, with the libraries loaded.
        "PATH": os.pathsep.join(
            [os.path.dirname(warm.python()), os.path.dirname(sys.executable), os.environ["PATH"]]
        ),
        "MPLBACKEND": "Agg",
        **variables,
    }
