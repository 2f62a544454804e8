"""A run with everything that a report shows, its page, and a browser."""

import shutil

import pytest
import synthetic_run

from neas_tf.report import Table, read_run, write_page


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "toy")


@pytest.fixture(scope="module")
def chromium():
    from browser_tab import CHROMIUM, OPTIONS, sync_api

    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield opened
        opened.close()


@pytest.fixture
def open_tab(chromium):
    """Makes tabs; none may leave an error, a message on the console or a request for another file."""
    from browser_tab import Tab

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
    from browser_tab import CIFAR, EVIL

    path = tmp_path_factory.mktemp("pages") / "two.html"
    table = Table("Seeds", ("seed", "accuracy"), ((EVIL, 0.5), ("1", None)))
    write_page(path, [read_run(CIFAR), read_run(toy)], tables=[table])
    return path
