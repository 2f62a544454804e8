"""report.html in a real browser, from disk; skipped where there is no Chromium or Chrome."""

import json
import pathlib
import re
import shutil

import browser
import pytest
import synthetic_run

from neas_tf.common.paths import project_file
from neas_tf.report import Table, read_run, write_page
from neas_tf.space.architecture import Architecture

EVIL = '<img src=x onerror="document.title=1">'
CIFAR = pathlib.Path(project_file("docs", "results", "cifar10_cpu"))

pytestmark = pytest.mark.skipif(
    browser.binary() is None, reason=f"none of {', '.join(browser.NAMES)} is installed"
)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture(scope="module")
def page(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "report.html"
    write_page(path, [read_run(toy)])
    return path


@pytest.fixture(scope="module")
def two(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "two.html"
    table = Table("Seeds", ("seed", "accuracy"), ((EVIL, 0.5), ("1", None)))
    write_page(path, [read_run(CIFAR), read_run(toy)], tables=[table])
    return path


@pytest.fixture(autouse=True)
def quiet(tab):
    """No test may leave an error, a message on the console or a request for another file."""
    tab.size(1280, 900)
    yield
    assert tab.said == [] and tab.value("document.getElementById('errors').textContent") == ""
    assert set(tab.requested) == {tab.value("location.href.split('#')[0]")}


def count(selector: str) -> str:
    return f"document.querySelectorAll({json.dumps(selector)}).length"


def text(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent"


def focus(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).focus()"


def test_everything_is_drawn(tab, page, toy):
    run = read_run(toy)
    tab.open(page)
    assert tab.value(count("#scatter .pt[data-n]")) == len(run.candidates)
    assert tab.value(count("#scatter .star")) == 1
    front = tab.value(count("#scatter .frontpoint"))
    assert tab.value(text("#search summary")) == f"Pareto front as a table ({front})"
    assert tab.value(count("#training .chart svg path.line")) == 2 * (1 + 4 + 1)
    assert tab.value(count("#alive rect.cell")) == 7 * 5
    assert tab.value(count("svg.similarity")) == 4
    assert tab.value(count("#confusion rect.cell")) == 100
    differ = json.loads((toy / "retrain/confusion.json").read_text())["differ"][0][1]
    assert f"{differ / 100:.2f} %" in tab.value(text("#disagreement"))
    assert "95.85 %" in tab.value(text("#summary"))
    assert tab.value(count("#remarks")) == 0
    names = "[...document.querySelectorAll('button, select, input, [role=slider], [role=img]')]"
    labelled = "e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels.length)"
    assert tab.value(f"{names}.filter(e => !({labelled})).map(e => e.outerHTML)") == []


def diagram(tab):
    """(names of the boxes, their MACs, the total that the note names)."""
    boxes = "[...document.querySelectorAll('#picture rect[data-name]')]"
    return (
        tab.value(f"{boxes}.map(e => e.dataset.name)"),
        tab.value(f"{boxes}.map(e => Number(e.dataset.macs))"),
        tab.value("Number(document.getElementById('diagram-total').dataset.macs)"),
    )


def expected_boxes(key: str) -> list[str]:
    architecture = Architecture.from_key(key)
    rows = list(zip(*architecture.paths, strict=True))
    names = ["stem"]
    for i, row in enumerate(rows):
        names += row[:1] if i < architecture.split_point else row
    return [*names, *["head"] * architecture.num_paths]


@pytest.mark.parametrize("number", [0, 12, 30])
def test_the_address_chooses_a_candidate(tab, page, toy, number):
    candidate = read_run(toy).candidates[number]
    tab.open(page, f"#candidate={number}")
    names, macs, total = diagram(tab)
    assert names == expected_boxes(candidate.key)
    assert sum(macs) == total == candidate.macs
    told = tab.value("document.getElementById('scatter').getAttribute('aria-valuetext')")
    assert told.startswith(f"Candidate {number}") and f"{100 * candidate.accuracy:.2f} %" in told


def test_the_winner_is_chosen_at_first(tab, page, toy):
    tab.open(page)
    assert diagram(tab)[0] == expected_boxes(read_run(toy).winner_key)
    assert ", the winner, retrained" in tab.value(text("#candidate-title"))


def test_a_click_draws_its_candidate(tab, page, toy):
    tab.open(page)
    candidate = read_run(toy).candidates[3]
    tab.value("document.getElementById('scatter').scrollIntoView()")
    place = "document.querySelector('#scatter [data-n=\"3\"]').getBoundingClientRect()"
    x, y = tab.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place})")
    tab.mouse(x, y)
    tip = tab.value(text("#tooltip"))
    assert candidate.key in tip and f"{candidate.macs / 1e6:.2f} M MACs" in tip
    tab.mouse(x, y, click=True)
    assert diagram(tab)[2] == candidate.macs
    assert tab.value("location.hash") == "#candidate=3"
    assert tab.value("document.getElementById('candidate-number').value") == "3"


def test_arrow_keys_walk_by_cost_and_accuracy(tab, page, toy):
    candidates = read_run(toy).candidates
    tab.open(page)
    tab.value(focus("#scatter"))
    by_cost = sorted(candidates, key=lambda c: (c.macs, c.accuracy, c.number))
    by_accuracy = sorted(candidates, key=lambda c: (c.accuracy, c.number))
    now = "document.getElementById('scatter').getAttribute('aria-valuenow')"
    tab.key("Home")
    assert tab.value(now) == str(by_cost[0].number)
    for candidate in by_cost[1:4]:
        tab.key("ArrowRight")
        assert tab.value(now) == str(candidate.number)
    tab.key("ArrowUp")
    above = by_accuracy[by_accuracy.index(by_cost[3]) + 1]
    assert tab.value(now) == str(above.number)
    assert not tab.value("document.getElementById('tooltip').hidden")
    assert diagram(tab)[2] == above.macs
    tab.key("End")
    assert diagram(tab)[2] == by_cost[-1].macs


def test_focus_can_be_seen_and_comes_by_tab(tab, page):
    tab.open(page)
    reached = []
    for _ in range(6):
        tab.key("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert tab.value(f"{style}.outlineStyle") == "solid"
        assert tab.value(f"parseFloat({style}.outlineWidth)") >= 2
        reached.append(tab.value("document.activeElement.id"))
    assert {"cost", "candidate-number", "to-winner", "scatter"} <= set(reached)


def test_the_cost_can_be_changed(tab, page, toy):
    tab.open(page, "#cost=params")
    label = tab.value("document.getElementById('scatter').getAttribute('aria-label')")
    assert "accuracy against parameters" in label
    by_params = min(read_run(toy).candidates, key=lambda c: (c.params, c.accuracy))
    tab.value(focus("#scatter"))
    tab.key("Home")
    assert tab.value("location.hash") == f"#cost=params&candidate={by_params.number}"


def test_shrinks_by_slider_and_buttons(tab, page):
    tab.open(page)
    assert tab.value(text("#shrink-label")).startswith("shrink 3 at step 1,800")
    tab.value("document.getElementById('shrink-back').click()")
    assert tab.value(text("#shrink-label")) == (
        "shrink 2 at step 1,200, by diversity, 28 combinations left"
    )
    assert "shrink=2" in tab.value("location.hash")
    tab.value(focus("#shrink"))
    tab.key("ArrowLeft")
    tab.key("ArrowLeft")
    assert tab.value(text("#shrink-label")) == "start, 36 combinations"
    assert tab.value(count("#shrinks svg.similarity")) == 0
    assert tab.value(count("#alive .cross")) == 0
    assert "measured at each shrink" in tab.value(text("#shrinks"))


def test_runs_are_compared_and_chosen(tab, two, toy):
    tab.open(two)
    assert tab.value(count("#comparison tbody tr")) == 2
    results = json.loads((CIFAR / "results.json").read_text())
    accuracy = f"{100 * results['ensemble_accuracy']:.2f} %"
    assert accuracy in tab.value(text("#comparison tbody tr"))
    assert tab.value(text("#summary h2")) == "Summary of cifar10_cpu"
    assert tab.value(count("#scatter .pt[data-n]")) == 288
    assert tab.value(count("#confusion rect.cell")) == 100
    tab.value("document.querySelectorAll('#comparison button')[1].click()")
    assert tab.value(text("#summary h2")) == "Summary of toy"
    assert tab.value(count("#scatter .pt[data-n]")) == len(read_run(toy).candidates)
    assert tab.value("location.hash") == "#run=1"
    tab.value("location.hash = '#run=0&candidate=5'")
    assert diagram(tab)[2] == read_run(CIFAR).candidates[5].macs


def test_texts_stay_texts(tab, toy, two, tmp_path):
    folder = shutil.copytree(toy, tmp_path / EVIL.replace("/", ""))
    confusion = json.loads((folder / "retrain/confusion.json").read_text())
    confusion["class_names"] = [f"{EVIL}{i}" for i in range(10)]
    synthetic_run.write_json(folder / "retrain/confusion.json", confusion)
    write_page(tmp_path / "evil.html", [read_run(folder)])
    tab.open(tmp_path / "evil.html")
    assert tab.value(count("img")) == 0
    assert EVIL in tab.value(text("#title")) and EVIL in tab.value(text("#test table"))
    assert tab.value("document.title") == f"NEAS: {folder.name}"
    tab.open(two)
    assert tab.value(count("img")) == 0 and EVIL in tab.value(text(".study"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(tab, two, width, dark):
    tab.size(width, 740, dark)
    for run in (0, 1):
        tab.open(two, f"#run={run}")
        tab.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        root = "document.documentElement"
        assert tab.value(f"{root}.scrollWidth") <= tab.value(f"{root}.clientWidth") <= width
        wide = (
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && "
            "e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 200))"
        )
        assert tab.value(wide) == []


def luminance(colour: str) -> float:
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_marks_stand_out(tab, page, dark):
    """WCAG: texts 4.5 : 1, marks 3 : 1 against the card behind them."""
    tab.size(1280, 900, dark)
    tab.open(page)
    style = "getComputedStyle(document.querySelector({!r})).{}"
    card = luminance(tab.value(style.format("section.card", "backgroundColor")))
    assert (card < 0.05) == dark
    for selector, name, least in (
        ("h2", "color", 4.5),
        (".note", "color", 4.5),
        ("summary", "color", 4.5),
        ("svg .soft", "fill", 4.5),
        (".front", "stroke", 3),
        (".line.c0", "stroke", 3),
        (".line.c1", "stroke", 3),
        ("circle.live", "fill", 3),
    ):
        ink = luminance(tab.value(style.format(selector, name)))
        ratio = (max(ink, card) + 0.05) / (min(ink, card) + 0.05)
        assert ratio >= least, (selector, ratio)


def test_a_live_page_reloads_in_its_place(tab, toy, tmp_path):
    path = tmp_path / "live.html"
    write_page(path, [read_run(toy)], reload_seconds=1)
    tab.size(800, 600)
    tab.open(path, "#candidate=7")
    assert "reloads itself every 1 s" in tab.value(text("#live-text"))
    tab.value("window.scrollTo(0, 900)")
    tab.value("(document.getElementById('shrink-back').focus({preventScroll: true}), 1)")
    tab.wait_for_load(2)
    assert tab.value("window.scrollY") == 900
    assert tab.value("document.activeElement.id") == "shrink-back"
    assert tab.value("location.hash") == "#candidate=7"
    assert tab.value(text("#candidate-title")).startswith("Candidate 7")
    tab.value("document.getElementById('live-pause').click()")
    assert tab.value(text("#live-pause")) == "Go on"
    assert tab.value("history.state.paused") is True
    # The run is finished: the page that is there by now does not reload itself.
    write_page(path, [read_run(toy)])
    tab.value("document.getElementById('live-pause').click()")
    tab.wait_for_load(3)
    assert tab.value("document.getElementById('live').hidden")


def test_a_page_of_tables_alone(tab, tmp_path):
    table = Table("Seeds", ("seed", "accuracy"), ((EVIL, 0.5), ("1", None)), "A note.")
    write_page(tmp_path / "study.html", [], title="A study", tables=[table], notes=["It holds."])
    tab.open(tmp_path / "study.html")
    assert tab.value(text("#title")) == "A study" and tab.value(text("#notes")) == "It holds."
    assert tab.value(count(".study tbody tr")) == 2 and tab.value(count("main > *")) == 2
    assert tab.value(text(".study tbody td")) == EVIL


def test_an_empty_folder_says_what_is_missing(tab, tmp_path):
    (tmp_path / "empty").mkdir()
    write_page(tmp_path / "empty.html", [read_run(tmp_path / "empty")])
    tab.open(tmp_path / "empty.html")
    assert tab.value(count(".missing")) == 4
    assert "search/history.jsonl" in tab.value(text("#remarks"))


def test_a_run_without_its_confusion_says_so(tab, toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "toy")
    (folder / "retrain/confusion.json").unlink()
    write_page(tmp_path / "page.html", [read_run(folder)])
    tab.open(tmp_path / "page.html")
    assert "confusion matrix and path disagreement" in tab.value(text("#test .missing"))
