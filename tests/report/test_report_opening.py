"""The first screen, its verdict, and the pictures of the test."""

import base64
import json
import re

import numpy as np
import synthetic_run
from report_pages import Page

from neas_tf.ensemble.confusion import MAX_ERRORS, MAX_MENDED
from neas_tf.report import (
    make_page,
    read_run,
    summarise,
)
from neas_tf.report.parts.opening import verdict


def told(toy, **changes):
    return verdict({**summarise(toy), **changes})


def test_the_verdict_says_what_was_found_accuracy_gain_and_cost(toy):
    summary = summarise(toy)
    first, second = told(toy).split(": ")
    split, candidates = summary["architecture"]["split_point"], summary["search"]["candidates"]
    assert first == (
        f"An ensemble of 2 paths that share {'all' if split == 7 else f'the first {split} of 7'} "
        f"layers, chosen from {candidates} candidates"
    )
    share = 100 * summary["cost"]["macs"] / summary["budget"]["max_macs"]
    assert second.startswith(
        "95.85 % of 10,000 test images right (± 0.20), 0.75 points more than its best path alone. "
        "It takes "
    )
    assert f" MACs, {share:.0f} % of the " in second and second.endswith("that the budget allows.")
    assert told(toy).count(". ") == 1, "two sentences"


def test_the_verdict_of_what_is_not_finished(toy):
    assert told(toy, architecture=None, search=None).startswith("Nothing is found yet")
    assert (
        told(toy, architecture=None, search={"candidates": 40, "best_accuracy": 0.5})
        == "The search is not finished: of 40 candidates so far the best has 50.00 %."
    )
    assert "with the supernet's weights, not retrained yet." in told(toy, accuracy=None)
    accuracy = {"ensemble": 0.5, "gain": -0.01, "test_examples": 100}
    assert "(± 5.00), 1.00 points less than its best path" in told(toy, accuracy=accuracy)
    single = {"num_paths": 1, "split_point": 7, "num_layers": 7}
    assert told(toy, architecture=single, accuracy=accuracy).startswith(
        "A single path of 7 layers, chosen"
    )
    cost, limits = {"macs": 50, "params": 90}, {"max_macs": 100, "max_params": 100}
    assert "It takes 90 parameters, 90 % of the 100 parameters" in told(
        toy, cost=cost, budget=limits
    )
    assert told(toy, cost=cost, budget={}).endswith("It takes 50 MACs; there was no upper bound.")
    latency = {"cost": {"latency_ns": 1_500_000}, "budget": {"max_latency_ms": 2.0}}
    assert "75 % of the 2.00 ms" in told(toy, **latency)


def test_first_come_verdict_picture_and_candidates(toy):
    page = Page(make_page([read_run(toy)]))
    links = [a["href"][1:] for t, a in page.elements if t == "a"]
    sections = [a["id"] for t, a in page.elements if t == "section"]
    assert links == sections
    assert sections == [
        f"r0-{n}"
        for n in ("summary", "test", "uncertainty", "search", "training", "shrinks", "facts")
    ]
    order = [a.get("id") or a.get("class") for _, a in page.elements]
    first = [
        "r0-summary",
        "verdict",
        "r0-picture",
        "r0-scatter-macs",
        "figures",
        "r0-json",
        "r0-test",
    ]
    assert [order.index(name) for name in first] == sorted(order.index(name) for name in first)
    assert verdict(summarise(toy)) in page.texts["p"]


def test_test_pictures_show_what_every_path_named(toy):
    found = json.loads((toy / "retrain/pictures.json").read_text())
    text = make_page([read_run(toy)]).decode()
    figures = re.findall(r"<figure>(.*?)</figure>", text)
    names = found["class_names"]
    assert len(figures) == len(found["errors"]) + len(found["mended"]) > 10
    for picture, figure in zip(found["errors"] + found["mended"], figures, strict=True):
        assert f'src="data:image/png;base64,{picture["picture"]}"' in figure
        assert f"Test image {picture['image']}, of the class {names[picture['label']]}" in figure
        for k, (named, share) in enumerate(
            zip(picture["named"][:-1], picture["sure"], strict=False)
        ):
            mark = "right" if named == picture["label"] else "wrong"
            assert (
                f'<li class="{mark}">path {k + 1}: {names[named]} {100 * share:.0f} %</li>'
                in figure
            )
    sure = [float(x) for x in re.findall(r'<strong class="wrong">.*? (\d+) %</strong>', text)]
    assert sure == sorted(sure, reverse=True) and len(sure) == len(found["errors"])


def test_a_run_without_pictures_says_so_and_damaged_ones_are_a_problem(copy):
    path = copy / "retrain/pictures.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "errors": [{}]}))
    run = read_run(copy)
    assert run.pictures is None and "pictures" in run.problems[0]
    path.unlink()
    run = read_run(copy)
    assert run.pictures is None and run.problems == [] and run.missing == []
    page = Page(make_page([run]))
    assert "img" not in {tag for tag, _ in page.elements}
    assert "the surest errors; they need retrain/pictures.json" in page.texts["p"]
    path.write_text(json.dumps({**value, "errors": [], "mended": []}))
    assert "No path got any picture" in Page(make_page([read_run(copy)])).texts["p"]


def test_the_largest_page_is_not_too_large(tmp_path):
    """More candidates than a page shows, and as many and as large pictures as there may be."""
    folder = synthetic_run.write_run(tmp_path / "large", generations=30, population=70)
    path = folder / "retrain/pictures.json"
    value = json.loads(path.read_text())
    noise = np.random.default_rng(0).integers(256, size=3_997).astype(np.uint8)
    large = base64.b64encode(b"\xff\xd8\xff" + noise.tobytes()).decode()
    for kind, most in (("errors", MAX_ERRORS), ("mended", MAX_MENDED)):
        value[kind] = [{**value[kind][0], "picture": large}] * most
    path.write_text(json.dumps(value))
    run = read_run(folder)
    assert len(run.candidates) > 1_000 and run.pictures is not None
    assert len(make_page([run])) < 1_500_000
