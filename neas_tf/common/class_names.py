"""Names of classes: what they may be, and whether a model and its data mean the same by a label."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from neas_tf.common.errors import NeasError, shown

# Control characters, halves of characters, and separators of lines and paragraphs.
_BREAKING = ("Cc", "Cs", "Zl", "Zp")


def check_class_names(names: object, field: str) -> tuple[str, ...]:
    """Names that a labels file of one line each can hold, and that tell the classes apart.

    Args:
      names: in the order of the labels.
      field: where they come from, for the message.

    Raises:
      NeasError: for names that are no strings, empty, of several lines, with control characters or
        blanks around them, or there twice.
    """
    if not isinstance(names, (list, tuple)):
        raise NeasError(f"{field}: received {shown(names)}, expected a list of names.")
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str):
            wrong = "expected a string"
        elif not name.strip():
            wrong = "expected a name that is not empty"
        elif any(unicodedata.category(char) in _BREAKING for char in name):
            wrong = "expected one line without control characters"
        elif name != name.strip():
            wrong = "expected a name without blanks around it"
        elif name in seen:
            wrong = f"which is class {seen[name]} too; expected a name of its own for each class"
        else:
            seen[name] = number
            continue
        raise NeasError(f"{field}: received {shown(name)} as the name of class {number}, {wrong}.")
    return tuple(names)


def compare_classes(model: Sequence[str], data: Sequence[str], name: str) -> str:
    """Compares the classes of a model with those of a data set.

    Args:
      model: names, in the order of the model's outputs.
      data: names, in the order of the data's labels.
      name: of the data.

    Returns:
      A warning, or '' when there is nothing to say: the names are the same, or one side only
      has numbers.

    Raises:
      NeasError: when their number differs, or a name of both stands for another label.
    """
    model, data = tuple(model), tuple(data)
    if len(model) != len(data):
        raise NeasError(f"data: {name!r} has {len(data)} classes, the model {len(model)}.")
    numbers, same = tuple(map(str, range(len(model)))), sorted(model) == sorted(data)
    if model == data or (numbers in (model, data) and not same):
        return ""
    differ = [i for i in range(len(model)) if model[i] != data[i]]
    known = {other: i for i, other in reversed(list(enumerate(model)))}
    for i in differ:
        if data[i] in known:
            whole = "the model's classes" if same else "classes"
            raise NeasError(
                f"data: {name!r} has {whole} in another order (class {i} is {data[i]!r}, which is "
                f"class {known[data[i]]} of the model), expected is the model's order."
            )
    i = differ[0]
    return (
        f"warning: the classes have other names in {name!r} than in the model (class "
        f"{i}: {data[i]!r}, {model[i]!r}); they are taken to be in the same order."
    )
