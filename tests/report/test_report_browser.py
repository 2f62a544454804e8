"""report.html in a real browser, from disk: what is drawn, chosen, compared and saved."""

import csv
import io
import json
import shutil

import pytest
import synthetic_run
from browser_tab import CIFAR, EVIL, MARKS, SCATTER, needs_chromium, saved

from neas_tf.report import Table, read_run, summarise, write_page
from neas_tf.space.architecture import Architecture

pytestmark = needs_chromium


def test_everything_is_drawn(tab, page, toy):
    run = read_run(toy)
    tab.open(page)
    assert tab.count(f"{SCATTER} {MARKS}.points_marks path") == len(run.candidates)
    assert tab.count("#r0-summary .chart[data-drawn=light]") == 1
    assert tab.count("#r0-search .chart[data-drawn=light]") == 1
    assert tab.count("#r0-training .chart[data-drawn=light]") == 6
    assert tab.count("#r0-training .mark-line.role-mark path") == 2 * 2 * (1 + 4 + 1)
    alive = summarise(run)["shrinking"]["operators_after"]
    assert tab.count("#r0-s3-alive .layer_0_marks path") == alive
    assert tab.count("#r0-shrinks .state:not([hidden]) .matrices .chart[data-drawn=light]") == 4
    assert tab.count("#r0-confusion .mark-rect.role-mark path") > 10
    assert tab.count("#r0-risk .mark-line.role-mark path") >= 3
    differ = json.loads((toy / "retrain/confusion.json").read_text())["differ"][0][1]
    assert f"{differ / 100:.2f} %" in tab.text("#r0-test")
    assert "95.85 %" in tab.text("#r0-summary .verdict")
    pictures = json.loads((toy / "retrain/pictures.json").read_text())
    shown = tab.value("[...document.querySelectorAll('#r0-test img')].map(e => e.naturalWidth)")
    assert shown == [12] * len(pictures["errors"] + pictures["mended"])
    assert tab.count("#r0-remarks") == 0
    names = "[...document.querySelectorAll('button, select, input, [role=slider], [role=img]')]"
    labelled = "e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels.length)"
    assert tab.value(f"{names}.filter(e => !({labelled})).map(e => e.outerHTML)") == []


def diagram(tab, run=0):
    """(names of the boxes, the total that the note names)."""
    boxes = f"[...document.querySelectorAll('#r{run}-picture use')]"
    total = tab.page.locator(f"[data-run='{run}'] .diagram-total")
    return tab.value(f"{boxes}.map(e => e.dataset.name)"), int(total.get_attribute("data-macs"))


def expected_boxes(key: str) -> list[str]:
    architecture = Architecture.from_key(key)
    split, (first, *others) = architecture.split_point, architecture.paths
    return [*first, *(name for path in others for name in path[split:])]


@pytest.mark.parametrize("number", [0, 12, 30])
def test_the_address_chooses_a_candidate(tab, page, toy, number):
    candidate = read_run(toy).candidates[number]
    tab.open(page, f"#candidate={number}")
    assert diagram(tab) == (expected_boxes(candidate.architecture.key), candidate.macs)
    told = tab.attribute(SCATTER, "aria-valuetext")
    assert told.startswith(f"Candidate {number}") and f"{100 * candidate.accuracy:.2f} %" in told
    assert tab.value(f"NEAS.view('{SCATTER[1:]}').signal('chosen')") == number
    macs = "[...document.querySelectorAll('.layers td:last-child')].map(e => e.textContent)"
    assert len(tab.value(macs)) == len(expected_boxes(candidate.architecture.key))


def test_the_winner_is_chosen_at_first(tab, page, toy):
    tab.open(page)
    assert diagram(tab)[0] == expected_boxes(read_run(toy).winner_key)
    assert ", the winner, retrained" in tab.text(".candidate-title")


def test_a_click_draws_its_candidate(tab, page, toy):
    tab.open(page)
    candidate = read_run(toy).candidates[3]
    tab.page.locator(SCATTER).scroll_into_view_if_needed()
    place = f"""(() => {{
      const view = NEAS.view("{SCATTER[1:]}"), corner = document.querySelector("{SCATTER} svg").getBoundingClientRect();
      const [left, top] = view.origin();
      return [corner.x + left + view.scale("x")({candidate.macs}), corner.y + top + view.scale("y")({candidate.accuracy})];
    }})()"""
    x, y = tab.value(place)
    tab.page.mouse.move(x, y)
    tab.page.wait_for_selector("#vg-tooltip-element.visible")
    assert f"{candidate.macs:,}" in tab.text("#vg-tooltip-element")
    tab.page.mouse.click(x, y)
    tab.wait("location.hash === '#candidate=3'")
    assert diagram(tab)[1] == candidate.macs
    assert tab.page.locator("#r0-number").input_value() == "3"


def test_arrow_keys_walk_by_cost_and_accuracy(tab, page, toy):
    candidates = read_run(toy).candidates
    tab.open(page)
    by_cost = sorted(candidates, key=lambda c: (c.macs, c.accuracy, c.number))
    by_accuracy = sorted(candidates, key=lambda c: (c.accuracy, c.number))
    tab.key(SCATTER, "Home")
    assert tab.attribute(SCATTER, "aria-valuenow") == str(by_cost[0].number)
    for candidate in by_cost[1:4]:
        tab.key(SCATTER, "ArrowRight")
        assert tab.attribute(SCATTER, "aria-valuenow") == str(candidate.number)
    tab.key(SCATTER, "ArrowUp")
    above = by_accuracy[by_accuracy.index(by_cost[3]) + 1]
    assert tab.attribute(SCATTER, "aria-valuenow") == str(above.number)
    assert diagram(tab)[1] == above.macs
    tab.key(SCATTER, "End")
    assert diagram(tab)[1] == by_cost[-1].macs


def test_curves_are_read_by_arrow_keys(tab, page, toy):
    tab.open(page)
    chart = "#r0-retrain-learning_rate"
    tab.key(chart, "End")
    last = json.loads((toy / "retrain/metrics.jsonl").read_text().splitlines()[-1])
    told = f"step {last['step']}: learning rate {last['learning_rate']:g}"
    assert tab.attribute(chart, "aria-valuetext") == told
    assert tab.text(f"{chart} + .readout") == told
    tab.key(chart, "ArrowLeft")
    assert tab.attribute(chart, "aria-valuetext") != told
    steps = tab.value(f"NEAS.view('{chart[1:]}').signal('cursor')")
    assert steps == last["step"] - 40, "every second of 400 lines is drawn"


def test_focus_can_be_seen_and_comes_by_tab(tab, page):
    tab.open(page)
    reached = []
    for _ in range(22):
        tab.page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert tab.value(f"{style}.outlineStyle") == "solid"
        assert tab.value(f"parseFloat({style}.outlineWidth)") >= 2
        reached.append(tab.value("document.activeElement.id"))
    assert {"r0-cost", "r0-number", "r0-winner", SCATTER[1:]} <= set(reached)


def test_contents_keep_the_choice(tab, page, toy):
    tab.open(page, "#candidate=5")
    tab.page.click("nav a[href='#r0-shrinks']")
    assert tab.value("document.activeElement.id") == "r0-shrinks"
    assert tab.value("location.hash") == "#candidate=5"


def test_downloads_hold_the_data(tab, page, toy):
    run = read_run(toy)
    tab.open(page, "#candidate=5")
    name, content = saved(tab, "#r0-json")
    assert name == "toy-architecture.json"
    assert Architecture.from_dict(json.loads(content)) == run.candidates[5].architecture
    name, content = saved(tab, "#r0-csv")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert name == "toy-candidates.csv" and len(rows) == len(run.candidates)
    for row, candidate in zip(rows, run.candidates, strict=True):
        assert int(row["candidate"]) == candidate.number
        assert float(row["accuracy"]) == candidate.accuracy
        assert {m: int(row[m]) for m in candidate.costs} == candidate.costs
        assert row["key"] == candidate.architecture.key
        told = (int(row["generation"]), row["origin"])
        assert told == (candidate.generation, candidate.origin)


def test_the_cost_can_be_changed(tab, page, toy):
    tab.open(page, "#cost=params")
    chart = "#r0-scatter-params"
    assert "accuracy against parameters" in tab.attribute(chart, "aria-label")
    by_params = min(read_run(toy).candidates, key=lambda c: (c.costs["params"], c.accuracy))
    tab.key(chart, "Home")
    assert tab.value("location.hash") == f"#cost=params&candidate={by_params.number}"
    tab.page.select_option("#r0-cost", "macs")
    tab.drawn()
    assert tab.page.locator(SCATTER).is_visible() and not tab.page.locator(chart).is_visible()


def test_shrinks_by_slider_and_buttons(tab, page):
    tab.open(page)
    assert tab.text(".shrink-label").startswith("shrink 3 at step 1,800")
    tab.page.click("#r0-back")
    assert tab.text(".shrink-label") == "shrink 2 at step 1,200, by diversity, 28 combinations left"
    assert "shrink=2" in tab.value("location.hash")
    tab.key("#r0-shrink", "ArrowLeft", "ArrowLeft")
    tab.drawn()
    assert tab.text(".shrink-label") == "start, 36 combinations"
    shown = "#r0-shrinks .state:not([hidden])"
    assert tab.count(f"{shown} .chart") == 1 and "measured at each shrink" in tab.text(shown)


def test_runs_are_compared_and_chosen(tab, two, toy):
    tab.open(two)
    assert tab.count("#comparison tbody tr") == 2
    results = json.loads((CIFAR / "results.json").read_text())
    assert f"{100 * results['ensemble_accuracy']:.2f} %" in tab.text("#comparison tbody tr")
    assert tab.text("[data-run]:not([hidden]) h2") == "What cifar10_cpu found"
    assert tab.count(f"{SCATTER} {MARKS}.points_marks path") == 288
    tab.page.click("[data-choose-run='1']")
    tab.drawn()
    assert tab.text("[data-run]:not([hidden]) h2") == "What toy found"
    drawn = tab.count(f"#r1-scatter-macs {MARKS}.points_marks path")
    assert drawn == len(read_run(toy).candidates)
    assert tab.value("location.hash") == "#run=1"
    tab.value("location.hash = '#run=0&candidate=5'")
    tab.wait("document.getElementById('r0-number').value === '5'")
    assert diagram(tab)[1] == read_run(CIFAR).candidates[5].macs


def test_texts_stay_texts(tab, toy, two, tmp_path):
    folder = shutil.copytree(toy, tmp_path / EVIL.replace("/", ""))
    confusion = json.loads((folder / "retrain/confusion.json").read_text())
    confusion["class_names"] = [f"{EVIL}{i}" for i in range(10)]
    synthetic_run.write_json(folder / "retrain/confusion.json", confusion)
    write_page(tmp_path / "evil.html", [read_run(folder)])
    tab.open(tmp_path / "evil.html")
    tab.page.locator("#r0-confusion .mark-rect.role-mark path").first.hover(force=True)
    tab.page.wait_for_selector("#vg-tooltip-element.visible")
    assert EVIL in tab.text("#vg-tooltip-element")
    assert tab.count("img") == tab.count("#r0-test .pictures img") > 0
    assert EVIL in tab.text("#heading") and EVIL in tab.text("#r0-test table")
    assert tab.value("document.title") == f"NEAS: {folder.name}"
    tab.requested.clear()
    tab.open(two)
    pictures = [tab.count(f"#r{run}-test .pictures img") for run in (0, 1)]
    assert tab.count("img") == sum(pictures) and all(pictures) and EVIL in tab.text(".study")


def test_a_live_page_reloads_in_its_place(open_tab, toy, tmp_path):
    path = tmp_path / "live.html"
    write_page(path, [read_run(toy)], reload_seconds=5)
    tab = open_tab(800, 600)
    tab.open(path, "#candidate=7")
    assert "reloads itself every 5 s" in tab.text("#live-text")
    tab.value("window.scrollTo(0, 900)")
    tab.value("document.getElementById('r0-back').focus({preventScroll: true})")
    tab.value("window.earlier = true")
    tab.wait("!window.earlier")
    tab.drawn()
    assert tab.value("window.scrollY") == 900
    assert tab.value("document.activeElement.id") == "r0-back"
    assert tab.value("location.hash") == "#candidate=7"
    assert tab.text(".candidate-title").startswith("Candidate 7")
    tab.value("document.getElementById('live-pause').click()")
    assert tab.text("#live-pause") == "Continue"
    assert tab.value("history.state.paused") is True
    # The run is finished: the page that is there by now does not reload itself.
    write_page(path, [read_run(toy)])
    tab.value("document.getElementById('live-pause').click()")
    tab.wait("document.getElementById('live').hidden")
    tab.drawn()


def test_a_page_of_tables_alone(tab, tmp_path):
    table = Table("Seeds", ("seed", "accuracy"), ((EVIL, 0.5), ("1", None)), "A note.")
    write_page(tmp_path / "study.html", [], title="A study", tables=[table], notes=["It holds."])
    tab.open(tmp_path / "study.html")
    assert tab.text("#heading") == "A study" and tab.text("#study-0 .verdict") == "It holds."
    assert tab.count(".study tbody tr") == 2 and tab.count("main > section") == 2
    assert tab.text(".study tbody td") == EVIL
    assert (tmp_path / "study.html").stat().st_size < 40_000, "no charts, no library for them"


def test_an_empty_folder_says_what_is_missing(tab, tmp_path):
    (tmp_path / "empty").mkdir()
    write_page(tmp_path / "empty.html", [read_run(tmp_path / "empty")])
    tab.open(tmp_path / "empty.html")
    assert tab.count(".missing") == 6
    assert tab.text(".verdict").startswith("Nothing is found yet")
    assert "search/history.jsonl" in tab.text("#r0-remarks")


def test_a_run_without_its_confusion_says_so(tab, toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "toy")
    (folder / "retrain/confusion.json").unlink()
    (folder / "search/history.jsonl").unlink()
    write_page(tmp_path / "page.html", [read_run(folder)])
    tab.open(tmp_path / "page.html")
    assert "confusion matrix and path disagreement" in tab.text("#r0-test .missing")
    assert tab.count("#r0-test .pictures img") > 0 and "chosen from" not in tab.text(".verdict")
    assert diagram(tab)[0] == expected_boxes(read_run(toy).winner_key), "the retrained ensemble"
