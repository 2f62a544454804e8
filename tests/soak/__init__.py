"""Long trials: `python -m tests.soak --parts=crashes --work=DIR --output=soak.json --markdown=soak.md`.

A part is a module of this package with a name in `PARTS`. It has

    TITLE: str, one line for --list
    def run_part(work: pathlib.Path, minutes: float) -> dict

`work` is a folder of the part's own. What is finished there is not done again, so that a trial that
was stopped, or whose minutes were up, goes on with the same command. The part begins nothing new
once its minutes are up. It returns {"rows": [...], "notes": [...]}; a row has

    fault     what was done to the project, in a few words
    stage     where
    tried     how often
    survived  how often it ended as it should
    seconds   wall time of all of them
    details   a list of strings, what did not survive and why; empty where all did

`notes` are sentences for the reader, such as how a full disk was made. Importing a part must not
load TensorFlow, for --help and --list to be quick.
"""

import pathlib
import sys

# The package as `soak`, and what tests share, whoever imports it.
_TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(path) for path in (_TESTS, _TESTS / "support") if str(path) not in sys.path]

# Minutes that each may take; less than two hours in all, with what was begun before they were up.
PARTS = {"crashes": 55.0, "devices": 22.0, "parsers": 28.0}
