"""A browser that shows timeline pages."""

import shutil

import pytest

import synthetic_trace
from tickwise.report.timeline import timeline_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs a Chromium on this machine, e.g. Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a trace's page. After the test: no errors were said, nothing but the page itself was asked for."""
    problems, asked, pages = [], [], []

    def call(trace, width=1280, height=800, usage=(), **meta):
        path = tmp_path / f"timeline-{len(pages)}.html"
        path.write_text(timeline_page(**trace.page(**meta), usage=usage), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        pages.append(page)
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield call
    for page in pages:
        page.close()
    assert problems == []
    assert len(asked) == len(pages)
    assert all(url.startswith("file://") for url in asked)


@pytest.fixture(scope="module")
def conversation():
    return synthetic_trace.conversation()
