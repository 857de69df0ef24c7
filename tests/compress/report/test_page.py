"""report.html in a real browser: it renders, switches tabs, sorts, works by keyboard, and logs no error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_report import EPOCHS, GATE, measurement, outputs, publish
from PIL import Image

from compress.report import documents
from compress.report import page as page_module
from compress.report import report as reports
from compress.report.build import build
from compress.report.report import Report
from runtimes.lineage import QuantizeRecord
from runtimes.metrics import confusion_of_rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
SAMPLES = Path(__file__).parents[2] / "samples"
HOSTILE = '<script>document.title = "owned"</script>'
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


def written(folder: Path) -> Path:
    """Write a report with two targets and three layers, one without SQNR; return the page."""
    phone = (measurement("float32", 40, 3.0, 8_000_000, "phone"), measurement("int8", 44, 1.0, 2_000_000, "phone"))
    publish(folder, measurement("int8", 44, 1.0, 2_000_000), GATE, classes=("a", HOSTILE), others=phone)
    report = reports.read(folder / "run")
    (file,) = report.artifacts
    quantize, verify = file.manifest.lineage
    assert isinstance(quantize, QuantizeRecord)
    assert quantize.layers is not None
    layers = (
        *quantize.layers,
        replace(quantize.layers[0], name="head", sqnr_db=9.5),
        replace(quantize.layers[0], name="float", precision="float32", sqnr_db=None),
    )
    manifest = replace(file.manifest, lineage=(replace(quantize, layers=layers), verify))
    documents.write(
        replace(report, artifacts=(replace(file, file="model-int8.onnx", manifest=manifest),)), folder / "run"
    )
    return folder / "run" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    from playwright.sync_api import sync_playwright

    flags = [*OFFLINE, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


class Opened:
    """A page with its console messages and requests."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.page = browser.new_page(**settings)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def names(self, table: int = 0) -> list[str]:
        """Return the names in a sortable table of the first target, in displayed order."""
        return list(self.page.locator("#target-1 table.sortable").nth(table).locator("tbody th").all_inner_texts())


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that most tests read."""
    return written(tmp_path_factory.mktemp("html"))


@needs_browser
def test_it_opens_offline_without_a_word_on_the_console(browser: Any, report_page: Path) -> None:
    opened = Opened(browser, report_page)
    assert opened.page.locator("h2").first.inner_text() == "Verdict: inconclusive"
    assert opened.page.title() == "test: inconclusive"  # and no class's name was run as a script
    assert opened.page.locator("svg.chart").count() == 2 * 2 + 2  # two per target, two of the training
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


@needs_browser
def test_tabs_show_one_target_and_are_moved_by_arrows(browser: Any, report_page: Path) -> None:
    page = Opened(browser, report_page).page
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts() == ["board", "phone"]
    assert [page.locator(f"#target-{index}").is_visible() for index in (1, 2)] == [True, False]
    tabs.nth(1).click()
    assert [page.locator(f"#target-{index}").is_visible() for index in (1, 2)] == [False, True]
    page.keyboard.press("ArrowRight")  # round to the first
    assert page.get_by_role("tab", selected=True).inner_text() == "board"
    page.keyboard.press("End")
    assert page.get_by_role("tab", selected=True).inner_text() == "phone"
    assert page.evaluate("document.activeElement.textContent") == "phone"


@needs_browser
def test_columns_sort_by_click_and_by_key_and_what_is_unknown_stays_last(browser: Any, report_page: Path) -> None:
    opened = Opened(browser, report_page)
    assert opened.names() == ["stem", "head", "float"]
    sqnr = opened.page.locator("#target-1 table.sortable").first.get_by_role("button", name="SQNR dB")
    sqnr.click()
    assert opened.names() == ["head", "stem", "float"]
    sqnr.focus()
    opened.page.keyboard.press("Enter")
    assert opened.names() == ["stem", "head", "float"]
    assert sqnr.locator("..").get_attribute("aria-sort") == "descending"
    opened.page.locator("#target-1 table.sortable").first.get_by_role("button", name="layer").click()
    assert opened.names() == ["float", "head", "stem"]
    assert sqnr.locator("..").get_attribute("aria-sort") == "none"
    assert opened.messages == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(browser: Any, report_page: Path, scheme: str) -> None:
    page = Opened(browser, report_page, color_scheme=scheme).page
    background = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (background > 0.5) == (scheme == "light")
    for selector in ("body", "caption", "figcaption", "td.pass", "td.inconclusive", ".chart .muted", ".chart .int8"):
        colour = luminance(page.locator(selector).first.evaluate("node => getComputedStyle(node).color"))
        ratio = (max(colour, background) + 0.05) / (min(colour, background) + 0.05)
        assert ratio >= 4.5, selector  # WCAG 2.2, 1.4.3


def luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(…)` (WCAG 2.2)."""
    parts = np.asarray([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@needs_browser
def test_screen_readers_get_names_for_everything(browser: Any, report_page: Path) -> None:
    page = Opened(browser, report_page).page
    assert page.locator("html[lang=en]").count() == 1
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg:not([role=img]), svg:not([aria-label])").count() == 0
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("thead th:not([scope=col])").count() == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"


@needs_browser
def test_without_scripts_all_targets_are_there(browser: Any, report_page: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report_page.as_uri())
    assert [page.locator(f"#target-{index}").is_visible() for index in (1, 2)] == [True, True]
    context.close()


@needs_browser
def test_a_narrow_screen_scrolls_tables_and_not_the_page(browser: Any, report_page: Path) -> None:
    page = Opened(browser, report_page, viewport={"width": 380, "height": 800}).page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 380


def test_names_of_classes_are_text_and_nothing_is_fetched(report_page: Path) -> None:
    text = report_page.read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_thousand_classes_stay_under_five_megabytes(tmp_path: Path) -> None:
    path = written(tmp_path)
    report = reports.read(tmp_path / "run")
    rng = np.random.default_rng(0)
    metrics = dict.fromkeys(("precision", "recall", "f1"), tuple(rng.random(1000).tolist()))
    confusion = tuple(confusion_of_rows(rng.integers(0, 2, (1000, 1000)).tolist()))
    classes = tuple(f"n{index:08d}" for index in range(1000))
    large = replace(
        report,
        measurements=tuple(
            replace(measured, accuracy=replace(measured.accuracy, **metrics, confusion=confusion))
            for measured in report.measurements
        ),
        data=replace(report.data, classes=classes, images_per_class={"test": dict.fromkeys(classes, 50)}),
        training={f"{index}-train": EPOCHS * 100 for index in range(4)},
    )
    noise = rng.integers(0, 256, (128, 128, 3), np.uint8)
    for picture in (path.parent / "flipped").glob("*.jpg"):
        Image.fromarray(noise).save(picture, quality=80)
    documents.write(large, path.parent)
    assert path.stat().st_size < 5e6


def test_a_report_of_schema_version_1_is_shown_without_the_parts_it_lacks(tmp_path: Path) -> None:
    report = Report.from_json(json.loads((SAMPLES / "schema-1/report.json").read_text()))
    (target,) = page_module.page(report, tmp_path).targets
    assert (target.accuracy_chart, target.flips, target.shown_flips) == (None, None, [])
    documents.write(report, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "Accuracy by stage" not in text
    assert "Verdict: none" in text


def test_classes_show_the_change_of_recall_and_confusions_the_most_frequent(tmp_path: Path) -> None:
    (target,) = page_module.page(build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000))), tmp_path).targets
    a, b = target.classes  # of 200 images each, 20 and then 22 are wrong
    assert (a.images, a.recall_before, a.recall) == (200, 0.9, 0.89)
    assert a.change_pp == b.change_pp == pytest.approx(-1.0)
    baseline, int8 = target.confusions
    assert baseline.matrix == [[180, 20], [20, 180]]
    assert int8.most == [(1, 0, 22), (0, 1, 22)]


def test_the_chart_shows_the_metric_of_the_gate(tmp_path: Path) -> None:
    gate = {"metric": "macro_f1", "max_drop_pp": 1}
    report = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), gate))
    chart = page_module.latency_chart(report, report.rows)
    assert "macro-F1 %" in chart
    assert "int8: 89.00 %" in chart


def test_layers_hold_channels_times_and_noise_of_the_last_artifact(tmp_path: Path) -> None:
    report = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000)))
    (target,) = page_module.page(report, tmp_path).targets
    without_lineage = page_module.LayerRow("stem", "", 16, 8, "float32", None, None, None)
    assert target.layers == [without_lineage]
    (file,) = report.artifacts
    report = replace(report, artifacts=(replace(file, file="model-int8.onnx"),))
    (target,) = page_module.page(report, tmp_path).targets
    assert target.layers == [page_module.LayerRow("stem", "depthwise Conv", 16, 8, "int7", 0.25, 0.5, 31.5)]
    assert target.noisiest == target.layers


@pytest.mark.parametrize("labelled", [True, False])
def test_the_chart_shows_each_row_with_its_bounds(tmp_path: Path, labelled: bool) -> None:
    report = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), labelled=labelled))
    chart = page_module.latency_chart(report, report.rows)
    first = "baseline: 90.00 %" if labelled else "baseline: 100.00 %"
    second = "int8: 89.00 %" if labelled else "int8: 99.00 %"
    assert first in chart
    assert second in chart
    assert chart.count('class="bar"') == 3  # p90 of both, bounds of the second
