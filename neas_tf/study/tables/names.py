"""Names of the studies, for the command's help, which loads none of them."""

from __future__ import annotations

from neas_tf.common.errors import unknown_name

NAMES = (
    "ranking",
    "homogeneous",
    "searcher",
    "paths",
    "sharing",
    "diversity",
    "frontier",
    "truth",
    "recipes",
    "winners",
    "worth",
    "uncertainty",
    "distillation",
)


def chosen(text: str) -> tuple[str, ...]:
    """Names of studies: one, several with commas, or 'all'.

    Raises:
      NeasError: for a name that is none.
    """
    if text == "all":
        return NAMES
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or (text,):
        if name not in NAMES:
            unknown_name("study", name, (*NAMES, "all"))
    return names
