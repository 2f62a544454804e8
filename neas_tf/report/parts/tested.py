"""The section on the test: pictures that were taken for something else, confusions, disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neas_tf.ensemble.confusion import picture_type
from neas_tf.report.parts.markup import Charts, Markup, card, note, table, tag
from neas_tf.report.summary import percent

# Of the file of pictures: heading, and what its pictures show.
_KINDS = {
    "errors": (
        "Surest errors",
        "The pictures that the ensemble got wrong, those first that it was surest of.",
    ),
    "mended": (
        "Errors that the ensemble mended",
        "A path got them wrong, those first that it was surest of; the mean of all paths is right.",
    ),
}


def test_section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """Pictures, confusions, and how the paths disagree."""
    title, identity = "Test of the retrained ensemble", f"{key}-test"
    parts, lacks = [], []
    if run["pictures"]:
        parts += _pictures(run["pictures"])
    else:
        lacks.append(("the surest errors", "retrain/pictures.json"))
    if run["confusion"]:
        parts += _confusion(run["confusion"], key, charts)
    else:
        lacks.append(("confusion matrix and path disagreement", "retrain/confusion.json"))
    if lacks:
        what, files = (" and ".join(words) for words in zip(*lacks, strict=True))
        lack = f"{what}; they need {files}, which the retraining writes (runs of older versions have none)."
        parts.append(note(lack, "missing"))
    return card(identity, title, *parts)


def _pictures(found: Mapping[str, Any]) -> list[Markup]:
    """The pictures of each kind, with what every path takes them for."""
    names, parts = found["class_names"], []
    for kind, (heading, words) in _KINDS.items():
        if found[kind]:
            shown = [_picture(picture, names) for picture in found[kind]]
            parts += [tag("h3", heading), note(words), tag("div", *shown, class_="pictures")]
    if not parts:
        parts.append(note("No path got any picture of the test wrong."))
    return parts


def _picture(picture: Mapping[str, Any], names: Sequence[str]) -> Markup:
    label, (*paths, ensemble) = names[picture["label"]], picture["named"]
    (*sure, surest), text = picture["sure"], picture["picture"]
    rows = [
        tag("li", f"path {k + 1}: {names[named]} {100 * share:.0f} %", class_=_mark(named, picture))
        for k, (named, share) in enumerate(zip(paths, sure, strict=True))
    ]
    told = f"{names[ensemble]} {100 * surest:.0f} %"
    right = (
        "" if ensemble == picture["label"] else f", right: {label} {100 * picture['right']:.0f} %"
    )
    return tag(
        "figure",
        tag(
            "img",
            alt=f"Test image {picture['image']}, of the class {label}",
            src=f"data:image/{picture_type(text)};base64,{text}",
        ),
        tag(
            "figcaption",
            tag("strong", told, class_=_mark(ensemble, picture)),
            right,
            tag("ul", *rows),
        ),
    )


def _mark(named: int, picture: Mapping[str, Any]) -> str:
    return "right" if named == picture["label"] else "wrong"


def _confusion(found: Mapping[str, Any], key: str, charts: Charts) -> list[Markup]:
    names, examples = found["class_names"], found["examples"]
    left = [tag("h3", "Confusion matrix of the ensemble")]
    if found["chart"]:
        label = (
            f"Confusion matrix of {len(names)} classes; the table of the most frequent confusions "
        )
        how = (
            "Rows: the right class; columns: the class that the ensemble names. The colour follows "
        )
        left.append(note(f"{how}the square root of the share."))
        left.append(charts.add(f"{key}-confusion", found["chart"], f"{label}says what stands out"))
    else:
        left.append(note(f"{len(names):,} classes are too many for a picture."))
    total: dict[int, int] = {}
    for label, _, images in found["counts"]:
        total[label] = total.get(label, 0) + images
    wrong = sorted((c for c in found["counts"] if c[0] != c[1]), key=lambda c: (-c[2], c[0], c[1]))
    rows = [[names[i], names[j], f"{n:,}", f"{100 * n / total[i]:.1f} %"] for i, j, n in wrong[:10]]
    columns = ["class", "taken for", "images", "of its images"]
    often = "The most frequent confusions"
    right = [tag("h3", often), table(columns, rows, often, [False, False, True, True])]
    for heading, field, words in (
        ("Path disagreement", "differ", "for which two paths name different classes."),
        ("Errors in common", "both_wrong", "that both paths get wrong; on the diagonal each path's own errors."),
    ):  # fmt: skip
        columns = ["", *(f"path {k + 1}" for k in range(len(found[field])))]
        rows = [
            [
                f"path {i + 1}",
                *(
                    "–" if (i == j and field == "differ") or not examples else percent(n / examples)
                    for j, n in enumerate(row)
                ),
            ]
            for i, row in enumerate(found[field])
        ]
        right += [tag("h3", heading), note(f"Share of the {examples:,} test images {words}")]
        right.append(table(columns, rows, heading))
    sides = tag("div", tag("div", *left), tag("div", *right), class_="columns two")
    return [sides]
