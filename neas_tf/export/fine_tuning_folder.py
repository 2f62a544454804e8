"""The folder of a fine-tuning: what its result depends on, and whether it may be resumed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import check_same, difference, listed, read_json, told

IDENTITY_FILE = "fine_tuning.json"
FORMAT = "neas-fine-tuning/1"


def check_identity(folder: Path, identity: Mapping[str, Any], set_aside: bool) -> None:
    """Refuses a folder with another fine-tuning, or with results of nobody knows what.

    Where wanted, a folder with another one gets another name instead; nothing of it is lost.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        if any(folder.glob("ckpt-*.index")):
            raise NeasError(
                f"fine_tune_dir: {str(folder)!r} holds checkpoints without {path.name}."
            )
        return
    found = read_json(path, "fine-tuning")
    if not isinstance(found, Mapping):
        raise NeasError(f"fine-tuning: {str(path)!r} holds no JSON object.")
    changes = difference(found, dict(identity))
    if not set_aside:
        remedy = "the same one again, another folder, or that this one is removed first"
        check_same(f"fine_tune_dir: {str(folder)!r}", "fine-tuning", found, dict(identity), remedy)
    elif changes:
        earlier = (folder.with_name(f"{folder.name}.earlier{n}") for n in itertools.count(1))
        place = next(place for place in earlier if not place.exists())
        with told(f"fine-tuning: {str(folder)!r}"):
            folder.rename(place)
        console.say(
            f"   {str(folder)!r} held another fine-tuning ({listed(changes)}), which is in "
            f"{place.name!r} now."
        )
