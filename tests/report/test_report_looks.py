"""report.html in a real browser: colours, places, widths, and what can be read."""

import io
import re

import pytest
from browser_tab import DRAWN, SCATTER, needs_chromium, saved
from PIL import Image

from neas_tf.report import read_run
from neas_tf.report.style import DARK, LIGHT

pytestmark = needs_chromium


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
    assert charts == drawn and len(charts) == 1 + 1 + 1 + 1 + 6 + 1 + 4
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
