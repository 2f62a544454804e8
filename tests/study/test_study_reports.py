"""Every study's report from results that are made up, whole and in part."""

import html
import json
import re

import numpy as np
import pytest
from study_plans import pretend, toy_plan

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.report import page
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.study import reporting
from neas_tf.study.learning import layer_widths, recipes
from neas_tf.study.rivals import RIVALS, fitted, scaled, space_settings
from neas_tf.study.settings import StudySettings
from neas_tf.study.statistics import Mean
from neas_tf.study.tables import diversity, homogeneous, paths, ranking, searcher
from neas_tf.study.tables.catalogue import STUDIES
from neas_tf.study.tables.names import NAMES
from neas_tf.study.truth.sets import sharpest_set
from neas_tf.study.units import Embedding, Scores, Search, Supernet, Training, in_order

PLAN = toy_plan()


def lookup_of(done, change=lambda unit, result: result):
    keys = {unit.key for unit in done}
    return lambda unit: change(unit, pretend(unit)) if unit.key in keys else None


class Everything:
    """A lookup in which every unit is done."""

    def __init__(self, change=lambda unit, result: result):
        self.change = change

    def __call__(self, unit):
        return self.change(unit, pretend(unit))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", ["all", "half", "none"])
def test_reports_of_whole_and_half_studies(name, share, tmp_path):
    study = STUDIES[name]
    if share == "all":
        lookup = Everything()
    else:
        own = in_order([unit for part in study.rounds(PLAN) for unit in part])
        known, done = Everything(), []
        for unit in own[: len(own) // 2 if share == "half" else 0]:
            done.append(unit.resolve(known))
        lookup = lookup_of(done)
    report = study.report(PLAN, lookup)
    missing = ["a unit"] if share != "all" else []
    header = reporting.Header(name, study.TITLE, study.PAPER, ["a fact"], [], missing, 1.5)
    reporting.write(tmp_path, header, report)
    value = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert value["study"] == name and value["values"]
    text = (tmp_path / "README.md").read_text("utf-8")
    assert all(words[1:] in text for words in report.sentences) and report.sentences
    assert ("## Not done yet" in text) == (share != "all")
    whole = text.split("\n\n")
    assert whole[1][1:] == report.sentences[0][1:], "the verdict comes first"
    assert text.index("## How it was done") > text.index(whole[1]) and "- a fact" in text
    if report.pictures:
        assert (
            whole[2].strip()
            == f"![{next(iter(report.pictures)).removesuffix('.png')}]({next(iter(report.pictures))})"
        )
    if any(table.rows for table in report.tables):
        shown = (tmp_path / "report.html").read_text("utf-8")
        (verdict,) = re.findall(r'<p class="verdict">(.*?)</p>', shown)
        assert html.unescape(verdict)[1:] == report.sentences[0][1:]
        order = [
            shown.index(words) for words in ('class="verdict"', "<table", "How it was done</h2>")
        ]
        order += [shown.index("<img")] if report.pictures else []
        assert sorted(order) == [order[0], *order[3:], *order[1:3]]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == sorted(report.pictures)
    if share == "all":
        assert pictures and not any("too little" in s.lower() for s in report.sentences)
        assert page.finite(study.report(PLAN, lookup).values) == value["values"]
    if share == "none":
        assert not pictures


def accuracy_by(rule):
    """Changes trainings so that their accuracy is a rule of the unit."""

    def change(unit, result):
        if isinstance(unit, Training):
            value = rule(Architecture.from_key(unit.ensemble), unit)
            return {**result, "ensemble_accuracy": value}
        return result

    return change


@pytest.mark.parametrize("best,verdict", [(2, "holds here"), (3, "does not hold here")])
def test_sentences_of_paths_follow_from_the_results(best, verdict):
    def rule(architecture, unit):
        return 0.9 - 0.1 * abs(architecture.num_paths - best) + 0.001 * unit.seed

    def change(unit, result):
        if isinstance(unit, Search):
            wanted = json.loads(unit.supernet.settings).get("num_paths", 2)
            rows = [
                ["s1:k3e1" + "|k3e1.skip.k3e1" * wanted, 0.5, 1000, 0],
            ]
            return {**result, "candidates": rows, "best": 0}
        return accuracy_by(rule)(unit, result)

    report = paths.report(PLAN, Everything(change))
    assert verdict in report.sentences[0] and "K = 2 > K = 3" in report.sentences[0]
    assert f"The best mean has K = {best}" in report.sentences[1]


@pytest.mark.parametrize("gain,verdict", [(0.1, "holds here"), (-0.1, "does not hold here")])
def test_sentences_of_homogeneous_follow_from_the_results(gain, verdict):
    def rule(architecture, unit):
        different = len(set(architecture.paths)) > 1
        return 0.7 + gain * different + 0.001 * unit.seed

    report = homogeneous.report(PLAN, Everything(accuracy_by(rule)))
    assert verdict in report.sentences[0]
    assert "differ by more than one standard deviation" in report.sentences[0]


def test_kendall_of_a_supernet_that_ranks_well():
    def change(unit, result):
        if unit.kind == "scores" and "shrink" not in json.loads(unit.supernet.settings):
            truth = [pretend(PLAN.training(0, key))["ensemble_accuracy"] for key in unit.ensembles]
            return {**result, "accuracies": [0.5 * value for value in truth]}
        return result

    values = ranking.report(PLAN, Everything(change)).values["metrics"]
    assert values["diversity"]["kendall"].mean == pytest.approx(1.0)
    assert values["none"]["kendall"].mean < 0.9
    assert values["diversity"]["interval"] == [pytest.approx(1.0), pytest.approx(1.0)]


def test_longer_trained_supernets():
    """They are scored only; that of one metric, which ranks perfectly, stands out in the table."""
    plan = toy_plan(longer=(3,), metrics=("none", "diversity"))
    added = set(ranking.rounds(plan)[1]) - set(
        ranking.rounds(toy_plan(metrics=plan.settings.metrics))[1]
    )
    assert {unit.kind for unit in added} == {"scores"} and len(added) == 4  # of both sets
    settings = [json.loads(unit.supernet.settings) for unit in added]
    assert all(found["supernet"] == {"epochs": 3.0} for found in settings)
    assert all(found["shrink"]["every_epochs"] == 3.0 for found in settings)

    def change(unit, result):
        own = json.loads(unit.supernet.settings) if unit.kind == "scores" else {}
        if "supernet" in own and "metric" not in own["shrink"]:
            truth = [pretend(plan.training(0, key))["ensemble_accuracy"] for key in unit.ensembles]
            return {**result, "accuracies": [0.5 * value for value in truth]}
        return result

    report = ranking.report(plan, Everything(change))
    longer = report.values["longer"]
    assert longer["diversity, 3 × the epochs"]["kendall"].mean == pytest.approx(1.0)
    assert longer["diversity, 3 × the epochs"]["between_supernets"].mean == pytest.approx(1.0)
    assert longer["none, 3 × the epochs"]["kendall"].mean < 0.9
    (table,) = [table for table in report.tables if "tells ensembles apart" in table.title]
    assert [row[0] for row in table.rows] == [*plan.settings.metrics, *longer]
    assert any("Sorting the same ensembles by MACs" in text for text in report.sentences)
    differences = report.values["differences"]
    assert set(differences) == {"diversity less none", "diversity less none, 3 × the epochs"}
    none = longer["none, 3 × the epochs"]["kendall"].mean
    assert differences["diversity less none, 3 × the epochs"]["value"] == pytest.approx(1 - none)


def test_random_ensembles_against_their_paths_and_the_budget():
    keys = PLAN.random_ensembles()

    def change(unit, result):
        if unit.kind == "training" and unit.ensemble in keys:
            place = keys.index(unit.ensemble)
            paths = [0.5, 0.6 if place < 3 else 0.4]
            macs = PLAN.budget + (place > 4)
            return {**result, "ensemble_accuracy": 0.55, "path_accuracies": paths, "macs": macs}
        return result

    report = ranking.report(PLAN, Everything(change))
    assert report.values["better_than_best_path"] == len(keys) - 3
    gain = (-0.05 * 3 + 0.05 * (len(keys) - 3)) / len(keys)
    assert report.values["gain_over_best_path"].mean == pytest.approx(gain)
    assert report.values["inside_budget"].count == 5
    assert any(text.startswith("5 of them lie within the budget") for text in report.sentences)
    (table,) = [table for table in report.tables if "by split point" in table.title]
    assert sum(int(row[1]) for row in table.rows) == len(keys)
    assert sum(int(row[4]) for row in table.rows) == len(keys) - 3
    assert [int(row[0]) for row in table.rows] == sorted({int(k[1 : k.index(":")]) for k in keys})


def test_alive_ensembles_are_counted():
    keys = PLAN.random_ensembles()

    def change(unit, result):
        if isinstance(unit, Supernet):
            return {**result, "alive": [[] for _ in result["alive"]]}
        return result

    alive = ranking.report(PLAN, Everything()).values["metrics"]["none"]["alive"]["ensembles"]
    dead = ranking.report(PLAN, Everything(change)).values["metrics"]["none"]["alive"]["ensembles"]
    assert (alive.mean, dead.mean) == (len(keys), 0)


def test_settings_of_shrinking_are_compared_by_how_they_rank():
    """A base that ranks the wrong way round is far from a setting that ranks as training does."""
    plan = toy_plan(seeds=(0,), shrinks={"k 1": {"remove": 1}})

    def change(unit, result):
        if isinstance(unit, Scores):
            sign = 1 if "remove" in unit.supernet.settings else -1
            truth = [pretend(plan.training(0, key)) for key in unit.ensembles]
            return {**result, "accuracies": [sign * row["ensemble_accuracy"] for row in truth]}
        return result

    report = diversity.report(plan, Everything(change))
    rows = report.values["settings"]
    assert rows["base"]["kendall"].mean == pytest.approx(-1)
    assert rows["k 1"]["kendall"].mean == pytest.approx(1)
    assert rows["k 1"]["kendall_less"]["base"]["value"] == pytest.approx(2)
    assert set(rows["base"]["kendall_less"]) == {"no shrinking"}
    assert "that of 'k 1' is +2.00 off (+2.00 to +2.00)" in report.sentences[0]
    alike = diversity.report(toy_plan(seeds=(0,), shrinks={"same": {}}), Everything())
    assert "none is clearly off" in alike.sentences[0]


def test_top_curve_by_hand():
    rows = [["a", 0.1, 10, 0], ["b", 0.5, 20, 0], ["c", 0.3, 30, 1], ["d", 0.7, 40, 1]]
    curve = searcher.top_curve({"candidates": rows}, 2)
    assert curve["top"] == [pytest.approx(0.3), pytest.approx(0.6)]
    assert curve["best"] == [0.5, 0.7] and curve["spread"] == [[0.1, 0.5], [0.5, 0.7]]
    assert curve["macs"] == [15.0, 30.0] and curve["scored"] == 4


def test_pictures_are_the_same_bytes_every_time():
    (make,) = searcher.report(PLAN, Everything()).pictures.values()
    assert make() == make()
    embedding = homogeneous.rounds(PLAN)[0][-1]
    assert isinstance(embedding, Embedding) and embedding.images == 10


def test_texts_of_numbers():
    assert reporting.percent(Mean(0.5, 0.01, 3)) == "50.00 ± 1.00 %"
    assert reporting.percent(0.25, 1) == "25.0 %"
    assert reporting.percent(Mean.of([])) == "–"
    assert page.finite({1: Mean.of([2.0])}) == {"1": {"mean": 2.0, "std": None, "count": 1}}
    table = page.Table("t", ("a",), (("s1:x|y",),))
    assert "| s1:x\\|y |" in reporting._markdown(table)


@pytest.mark.parametrize(
    "name,published",
    [
        # MACs at 224² of the papers, in millions.
        ("mobilenet_v2", 300),
        ("mobilenet_v3", 219),
        ("mobilenet_v4", 190),
        ("efficientnet_b0", 390),
    ],
)
def test_rivals_at_full_size_cost_about_what_was_published(name, published):
    space, key = scaled(name, SearchSpace(), 1.0, 1.0)
    macs = CostTable(space).cost(Architecture.from_key(key)).macs
    assert macs == pytest.approx(published * 1e6, rel=0.15)
    assert SearchSpace.from_dict({**dict(space_settings(space)), "num_classes": 1000}) == space


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_fit_a_budget_and_shrink_the_image_alike(name):
    like = toy_plan().space
    space, key = fitted(name, like, 400_000, 0.3)
    assert CostTable(space).cost(Architecture.from_key(key).check_in(space)).macs <= 400_000
    assert space.layers[-1].out_size == like.layers[-1].out_size
    wider, _ = fitted(name, like, 1_200_000, 0.3)
    assert sum(s.channels for s in wider.stages) > sum(s.channels for s in space.stages)
    assert fitted(name, like, 1000, 0.3) is None


@pytest.mark.parametrize(
    "value,words",
    [
        ([1], "study: received"),
        ({"seed": [1]}, "Did you mean 'seeds'"),
        ({"seeds": []}, "study.seeds"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": 3}, "a list"),
        ({"ensembles": 1}, "study.ensembles"),
        ({"longer": [0]}, "study.longer"),
        ({"metrics": ["diversty"]}, "Did you mean 'diversity'"),
        ({"rivals": ["resnet"]}, "study.rivals"),
        ({"rival_depth": 0}, "study.rival_depth"),
        ({"shrinks": {"a": 1}}, "study.shrinks.a"),
        ({"latency_shares": [1.5]}, "study.latency_shares"),
        ({"experiment": 1}, "study.experiment"),
        ({"truth": 1}, "study.truth: received 1, expected a mapping"),
        ({"truth": {"mac": 1}}, "study.truth.mac: unknown name"),
        ({"truth": {"macs": -1}}, "study.truth.macs: received -1, expected an integer ≥ 0"),
        ({"truth": {"tolerance": 2}}, "study.truth.tolerance: received 2, expected a share"),
        ({"truth": {"ensembles": 1}}, "study.truth.ensembles"),
        ({"truth": {"training_seeds": []}}, "study.truth.training_seeds"),
        ({"truth": {"retrain": 3}}, "study.truth.retrain: received 3, expected a mapping"),
        ({"winners": {"fitness": ["acuracy"]}}, "study.winners.fitness.*'accuracy'"),
        ({"winners": {"fitness": []}}, r"study.winners.fitness: received \[\], expected at least"),
        ({"winners": {"recipes": ["zero"]}}, "study.winners.recipes.*base"),
        ({"winners": {"best": 0}}, "study.winners.best"),
        ({"recipe_factor": 0}, "study.recipe_factor"),
    ],
)
def test_settings_are_checked(value, words):
    with pytest.raises(NeasError, match=words):
        StudySettings.from_dict(value)


def test_settings_are_read():
    settings = StudySettings.from_dict({"seeds": [4], "paths": [2, 3], "rival_depth": 2})
    assert settings.seeds == (4,) and settings.paths == (2, 3)
    assert settings.metrics == ("none", "accuracy", "diversity") and settings.rival_depth == 2


def test_recipes_train_for_the_cpu_time_of_the_base():
    """Half the base's seconds an epoch make twice the epochs, with as many shrinks."""
    plan = toy_plan(seeds=(3, 4))
    first, second = (plan.recipe_supernet(seed, "zero gamma") for seed in plan.seeds)
    assert plan.recipe_supernet(3, "base") == plan.supernet(3)
    assert first.pace == second.pace and first.needs == (first.pace,)
    assert first.resolve(lambda unit: None) is None
    resolved = first.resolve(pretend)
    assert type(resolved) is Supernet and resolved.seed == 3
    assert json.loads(resolved.settings) == {
        "supernet": {"zero_init_residual": True, "epochs": 2.0},
        "shrink": {"every_epochs": 2.0},
    }
    slow = {"ratio": 40.0}
    assert json.loads(first.resolve(lambda unit: slow).settings)["supernet"]["epochs"] == 1.0
    scores = plan.scores(first).resolve(pretend)
    assert scores.supernet == resolved and scores.needs == (resolved,)
    longer = toy_plan(seeds=(3, 4), recipe_factor=4.0)
    text = longer.recipe_supernet(3, "base").settings
    assert json.loads(text) == {"supernet": {"epochs": 4.0}, "shrink": {"every_epochs": 4.0}}
    text = longer.recipe_supernet(3, "zero gamma").resolve(pretend).settings
    assert json.loads(text)["supernet"]["epochs"] == 8.0


def test_recipes_by_hand():
    """Scores of the recipe are the truth's and 10 points above the base's, whose order is the reverse."""
    plan = toy_plan(seeds=(0,), resamples=50)
    keys = sharpest_set(plan).ensembles
    ranks = {key: i / 100 for i, key in enumerate(keys)}
    macs = {key: 1000 * ((3 * i) % 8) for i, key in enumerate(keys)}

    def lookup(unit):
        if isinstance(unit, Scores):
            zero = "zero_init" in unit.supernet.settings
            values = [0.3 + ranks[k] if zero else 0.27 - ranks[k] for k in unit.ensembles]
            return {"accuracies": values, "path_accuracies": []}
        result = pretend(unit)
        if isinstance(unit, Training) and "3.0" in unit.settings:  # trained long
            result |= {"ensemble_accuracy": ranks[unit.ensemble], "macs": macs[unit.ensemble]}
        return result

    made = recipes.report(plan, lookup)
    base, own = (made.values["recipes"][name] for name in ("base", "zero gamma"))
    assert own["epochs"] == 2.0 and base["epochs"] == 1.0
    assert own["score"].mean == pytest.approx(0.335) and base["score"].mean == pytest.approx(0.235)
    assert own["kendall"].mean == pytest.approx(1.0) and base["kendall"].mean == pytest.approx(-1.0)
    assert own["partial"].mean == pytest.approx(1.0) and base["partial"].mean == pytest.approx(-1.0)
    less = own["less_base"]
    assert less["score"]["value"] == pytest.approx(0.1)
    assert [less["kendall"][end] for end in ("value", "low", "high")] == pytest.approx([2.0] * 3)
    assert less["partial"]["value"] == pytest.approx(2.0)
    score, partial = (
        [f"{factor * less[key][end]:+.2f}" for end in ("value", "low", "high")]
        for key, factor in (("score", 100), ("partial", 1))
    )
    by_fitness = made.tables[1]
    assert by_fitness.columns[:3] == ("recipe", "fitness", "supernets")
    assert by_fitness.rows[0][:3] == ("base", "accuracy", "1")
    assert by_fitness.rows[-1][:3] == ("all of them", "accuracy", "2")
    widths = made.values["layer_widths"]
    assert list(widths) == ["trained from scratch", "base, seed 0", "zero gamma, seed 0"]
    truth = np.array(widths["trained from scratch"])
    np.testing.assert_allclose(widths["zero gamma, seed 0"], truth)
    np.testing.assert_allclose(widths["base, seed 0"], -truth)
    assert made.tables[4].columns[:2] == ("", "layer 1") and np.isfinite(truth).any()
    (sentence,) = made.sentences
    assert sentence == (
        f"zero gamma against the base in the same CPU time: {score[0]} points of mean accuracy (95 % "
        f"interval over the ensembles {score[1]} to {score[2]}), {partial[0]} partial τ (95 % interval "
        f"over the ensembles {partial[1]} to {partial[2]}); one seed."
    )
    assert "+10.00 points" in sentence and "+2.00 partial" in sentence
    # A seed that the base has not is not counted.
    both = toy_plan(seeds=(0, 1), resamples=50)

    def base_once(unit):
        is_base = isinstance(unit, Scores) and "zero_init" not in unit.supernet.settings
        return None if is_base and unit.seed == 1 else lookup(unit)

    assert recipes.report(both, base_once).sentences[0].endswith("; one seed.")


def test_the_layer_that_decides_is_seen():
    """The truth follows the first layer's expansion, split after layer 1; one supernet sees only the second's."""
    parts = [("k3e2", 2), ("k3e4", 4), ("k3e6", 6)]
    keys = {
        f"s1:{first}|{second}|k3e6": (one, (two + 6) / 2)
        for first, one in parts
        for second, two in parts
    }
    found = layer_widths.expansions(list(keys))
    np.testing.assert_array_equal(found, list(keys.values()))
    truth = {key: {"accuracy": one / 10, "macs": 1000} for key, (one, _) in keys.items()}
    scores = {
        "sees it": {key: -1 + one / 100 + two / 1e4 for key, (one, two) in keys.items()},
        "does not": {key: two for key, (_, two) in keys.items()},
    }
    rows = layer_widths.width_correlations(truth, scores)
    assert rows["trained from scratch"] == pytest.approx([1, 0], abs=1e-9)
    assert rows["sees it"][0] > 0.8 and 0 < rows["sees it"][1] < 0.4
    assert rows["does not"] == pytest.approx([0, 1], abs=1e-9)
    few = dict(list(truth.items())[:4])
    assert layer_widths.width_correlations(few, scores) == {}
    assert layer_widths.table_of_widths(rows).rows[1][0] == "sees it"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1}, "study.recipes.a: received 1, expected a mapping with settings of supernet"),
        ({"a": {"search": {}}}, "expected a mapping with settings of supernet, of shrink or both"),
        ({"a": {"supernet": {"epochs": 3}}}, "received 'supernet.epochs', expected others: it"),
    ],
)
def test_recipes_are_checked(value, words):
    with pytest.raises(NeasError, match=f"study.recipes.a: .*{words.split(': ')[-1]}"):
        StudySettings(recipes=value)
