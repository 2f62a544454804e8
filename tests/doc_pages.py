"""What the tests of pages share: code blocks, and the environment in which a page's commands run."""

import os
import re
import sys

import warm

from neas_tf.common.paths import project_file

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
