"""report.html in a real browser, from disk; skipped where there is no Chromium or Chrome."""

import contextlib
import csv
import io
import json
import pathlib
import re
import shutil
import time

import pytest
import synthetic_run
from PIL import Image

from neas_tf.common.paths import project_file
from neas_tf.report import Table, read_run, summarise, write_page
from neas_tf.report.style import DARK, LIGHT
from neas_tf.space.architecture import Architecture

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
EVIL = '<img src=x onerror="document.title=1">'
CIFAR = pathlib.Path(project_file("docs", "results", "cifar10_cpu"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
DRAWN = "[...document.querySelectorAll('.chart')].every(n => n.dataset.drawn || !n.offsetWidth)"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield opened
        opened.close()


class Tab:
    """A page of the browser; notes what it says, and what it asks for."""

    def __init__(self, chromium, width=1280, height=900, dark=False):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page, self.said, self.requested = context.new_page(), [], set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.add(request.url.split("#")[0]))
        self.value = self.page.evaluate

    def open(self, path, address=""):
        self.page.goto("about:blank")
        self.page.goto(f"{path.as_uri()}{address}")
        self.drawn()

    def wait(self, expression):
        """Until it is true; the page's policy keeps playwright from looking by itself."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(sync_api.Error):  # it is just being loaded
                if self.value(expression):
                    return
            time.sleep(0.05)
        raise TimeoutError(expression)

    def drawn(self):
        """Waits until each chart that can be seen is drawn."""
        self.wait(DRAWN)
        self.value("new Promise(done => setTimeout(done, 50))")

    def count(self, selector):
        return self.page.locator(selector).count()

    def text(self, selector):
        return self.page.locator(selector).first.text_content()

    def key(self, selector, *keys):
        for key in keys:
            self.page.locator(selector).press(key)

    def attribute(self, selector, name):
        return self.page.locator(selector).first.get_attribute(name)


@pytest.fixture
def open_tab(chromium):
    """Makes tabs; none may leave an error, a message on the console or a request for another file."""
    tabs = []

    def make(*arguments, **options):
        tabs.append(Tab(chromium, *arguments, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        assert tab.said == [] and tab.text("#errors") == ""
        here = tab.value("location.href.split('#')[0]")
        assert {url for url in tab.requested if not url.startswith("data:image")} == {here}
        tab.page.context.close()


@pytest.fixture
def tab(open_tab):
    return open_tab()


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


SCATTER = "#r0-scatter-macs"
MARKS = ".mark-symbol.role-mark"


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


def saved(tab, selector):
    """(name, bytes) of what a button saves, pressed by the keyboard."""
    with tab.page.expect_download() as got:
        tab.key(selector, "Enter")
    return got.value.suggested_filename, pathlib.Path(got.value.path()).read_bytes()


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


def coloured(content):
    """(size, how many colours, the colour of the corner) of a PNG."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return picture.size, len(picture.getcolors(1 << 20)), picture.getpixel((0, 0))


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_saved_as_png_in_the_readers_colours(open_tab, page, dark):
    tab = open_tab(dark=dark)
    tab.open(page)
    card = tuple(int((DARK if dark else LIGHT)["card"][i : i + 2], 16) for i in (1, 3, 5))
    shown = "[...document.querySelectorAll('.save[data-kind=png]')].filter(e => e.offsetWidth)"
    charts = tab.value(f"{shown}.map(e => e.dataset.chart)")
    drawn = tab.value(
        "[...document.querySelectorAll('.chart')].filter(e => e.offsetWidth && !e.closest('.scale')).map(e => e.id)"
    )
    assert charts == drawn and len(charts) == 1 + 1 + 1 + 6 + 1 + 4
    for chart in charts[::3]:  # Chromium saves no more than ten files within moments
        name, content = saved(tab, f".save[data-chart={chart}][data-kind=png]")
        assert name == f"toy-{chart.removeprefix('r0-')}.png"
        size, colours, corner = coloured(content)
        width = tab.value(f"document.querySelector('#{chart} svg').getBoundingClientRect().width")
        assert abs(size[0] - 2 * width) <= 4 and colours > 20 and corner == card
    name, content = saved(tab, "#r0-png")
    size, colours, corner = coloured(content)
    assert name == "toy-architecture.png" and corner == card
    assert size[0] > 1_000 and colours > 100
    wanted = [(DARK if dark else LIGHT)[name] for name in ("expand1", "expand2", "fixed")]
    found = {"#{:02x}{:02x}{:02x}".format(*c) for _, c in Image.open(io.BytesIO(content)).convert("RGB").getcolors(1 << 20)}  # fmt: skip
    assert wanted[2] in found and found & set(wanted[:2]), "boxes in their colours"
    name, content = saved(tab, ".save[data-chart=r0-confusion][data-kind=svg]")
    assert name == "toy-confusion.svg" and content.startswith(b"<svg")


def test_the_bar_stays_and_marks_where_the_reader_is(open_tab, page):
    for width in (1280, 390):
        tab = open_tab(width, 800)
        tab.open(page)
        bar, current = ".run:not([hidden]) .contents", ".contents [aria-current]"
        assert tab.text(current) == "Found"
        for name in ("training", "facts"):
            tab.page.click(f"nav a[href='#r0-{name}']")
            tab.wait(f"document.querySelector('{current}').hash === '#r0-{name}'")
            box = tab.page.locator(bar).bounding_box()
            assert box["y"] == 0 and box["height"] < 60, "one line at the upper edge"
        tab.value("window.scrollTo(0, 0)")
        tab.wait(f"document.querySelector('{current}').hash === '#r0-summary'")
        tab.page.click("nav a[href='#r0-training']")
        tab.wait("document.querySelector('#r0-training').getBoundingClientRect().top < 100")
        top = tab.value("document.querySelector('#r0-training').getBoundingClientRect().top")
        assert top >= tab.page.locator(bar).bounding_box()["height"] - 1, "below the bar"


def test_the_first_screen_holds_verdict_picture_and_candidates(open_tab, page):
    tab = open_tab(1280, 900)
    tab.open(page)
    places = [
        tab.page.locator(f".run {s}").first.bounding_box()
        for s in (".verdict", "#r0-picture", SCATTER)
    ]
    ends = [box["y"] + box["height"] for box in places]
    assert ends == sorted(ends) and ends[1] < 560
    view = f"NEAS.view('{SCATTER[1:]}')"
    assert places[2]["y"] + tab.value(f"{view}.origin()[1] + {view}.height()") < 900
    tab = open_tab(390, 844)
    tab.open(page)
    picture = tab.page.locator("#r0-picture").bounding_box()
    assert picture["y"] + picture["height"] < 600
    assert tab.page.locator(SCATTER).bounding_box()["y"] < 800


def test_tooltips_stand_beside_the_point(open_tab, page, toy):
    candidates = read_run(toy).candidates
    for width in (1280, 390):
        tab = open_tab(width, 900)
        tab.open(page)
        ends = [min(candidates, key=lambda c: c.macs), max(candidates, key=lambda c: c.macs)]
        for candidate in ends:
            point = tab.page.locator(f"{SCATTER} .points_marks path").nth(candidate.number)
            point.scroll_into_view_if_needed()
            point.hover(force=True)
            tab.page.wait_for_selector("#vg-tooltip-element.visible")
            tab.wait(
                f"document.querySelector('#vg-tooltip-element').textContent.includes('{candidate.macs:,}')"
            )
            mark, tip = point.bounding_box(), tab.page.locator("#vg-tooltip-element").bounding_box()
            gaps = [
                max(tip[a] - mark[a] - mark[n], mark[a] - tip[a] - tip[n])
                for a, n in (("x", "width"), ("y", "height"))
            ]
            assert 0 <= max(gaps) <= 24, (width, mark, tip, "beside it, and not over it")
            assert tip["x"] >= 0 and tip["x"] + tip["width"] <= width
            tab.page.mouse.move(2, 2)


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
    assert tab.count("img") == tab.count("#r1-test .pictures img") and EVIL in tab.text(".study")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(open_tab, two, width, dark):
    tab = open_tab(width, 740, dark=dark)
    for run in (0, 1):
        tab.open(two, f"#run={run}")
        tab.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        root = "document.documentElement"
        assert tab.value(f"{root}.scrollWidth") <= tab.value(f"{root}.clientWidth") <= width
        wide = (
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .contents') && "
            "e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 200))"
        )
        assert tab.value(wide) == []


def luminance(colour: str) -> float:
    if colour.startswith("#"):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    else:
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_marks_stand_out(open_tab, page, dark):
    """WCAG: texts 4.5 : 1, marks 3 : 1 against the card behind them."""
    tab = open_tab(dark=dark)
    tab.open(page)
    style = "getComputedStyle(document.querySelector({!r})).{}"
    card = luminance(tab.value(style.format("section.card", "backgroundColor")))
    assert (card < 0.05) == dark
    for selector, name, least in (
        ("h2", "color", 4.5),
        (".note", "color", 4.5),
        ("summary", "color", 4.5),
        (".readout", "color", 4.5),
        (f"{SCATTER} .role-axis-label text", "fill", 4.5),
        ("#r0-picture .d-text", "fill", 4.5),
        (f"{SCATTER} .mark-line.role-mark path", "stroke", 3),
        ("#r0-retrain-loss .layer_2_marks path", "stroke", 3),
    ):
        ink = luminance(tab.value(style.format(selector, name)))
        ratio = (max(ink, card) + 0.05) / (min(ink, card) + 0.05)
        assert ratio >= least, (selector, ratio)


def test_charts_follow_the_readers_scheme(tab, page):
    tab.open(page)
    tab.page.emulate_media(color_scheme="dark")
    tab.wait(DRAWN.replace("dataset.drawn", "dataset.drawn === 'dark'"))
    label = f"getComputedStyle(document.querySelector('{SCATTER} .role-axis-label text')).fill"
    assert luminance(tab.value(label)) > 0.5


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
    assert tab.count(".missing") == 5
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
