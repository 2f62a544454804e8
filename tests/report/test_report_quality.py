"""A search by likelihood is shown by likelihood: axis, front, best so far, and the words."""

import json

import numpy as np
import pytest
import synthetic_run
import yaml

from neas_tf.report.charts import candidate_rows, fronts, scatter_chart, search_picture
from neas_tf.report.page import make_page
from neas_tf.report.parts.quality import BY_ACCURACY, NAMES, quality_of
from neas_tf.report.reading import read_run
from neas_tf.search.fitness import ACCURACY, CALIBRATED, FITNESSES


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run whose winner by likelihood is not the most accurate candidate."""
    folder = synthetic_run.write_run(tmp_path_factory.mktemp("searched") / "likely")
    path = folder / "search/history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    values = -np.random.default_rng(3).uniform(0.8, 1.4, size=len(rows))
    for row, value in zip(rows, values.tolist(), strict=True):
        row[CALIBRATED] = value
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    best = rows[int(np.argmax(values))]
    assert best["accuracy"] < max(row["accuracy"] for row in rows)
    (folder / "search/best.json").write_text(json.dumps(best["architecture"]))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["search"]["fitness"] = CALIBRATED
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def test_every_fitness_has_words():
    assert set(NAMES) == set(FITNESSES)


def test_only_what_all_candidates_have_is_drawn(searched):
    found = read_run(searched).candidates
    assert quality_of(CALIBRATED, found).field == CALIBRATED
    for fitness in (ACCURACY, "ranks", "halving", "log_likelihood"):  # the last: of no candidate
        assert quality_of(fitness, found) == BY_ACCURACY


def test_the_winner_is_on_top(searched):
    run = read_run(searched)
    quality = quality_of(CALIBRATED, run.candidates)
    rows = candidate_rows(run.candidates, run.winner_key, quality)
    (winner,) = [row for row in rows if "w" in row]
    assert winner[CALIBRATED] == max(row[CALIBRATED] for row in rows)
    assert "macs" in winner["f"] and "macs" not in max(rows, key=lambda row: row["a"])["f"]
    for metric, front in fronts(run.candidates, quality).items():
        for i in front:
            cost, value = run.candidates[i].costs[metric], quality.of(run.candidates[i])
            rivals = [c for c in run.candidates if c.costs[metric] <= cost]
            assert all(quality.of(c) <= value for c in rivals)
    layers = scatter_chart("macs", rows, {}, quality)["layer"]
    assert {layer["encoding"]["y"]["field"] for layer in layers if "y" in layer["encoding"]} == {
        CALIBRATED
    }
    text = json.dumps(search_picture(run.candidates, run.winner_key, {}, None, quality))
    assert "Calibrated log-likelihood against cost" in text
    assert "calibrated log-likelihood in the search (nats)" in text and "accuracy in" not in text


def test_the_page_says_by_what(searched):
    text = make_page([read_run(searched)]).decode()
    assert "candidates by calibrated log-likelihood:" in text
    assert "Calibrated log-likelihood against" in text and "Accuracy against" not in text
    assert "up and down by calibrated log-likelihood" in text
    assert "Pareto front of calibrated log-likelihood and multiply-accumulates" in text
    assert "Best calibrated log-likelihood among the first candidates" in text
