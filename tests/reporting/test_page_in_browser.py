"""The page of a report in a real browser: what it shows, and that nothing goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_reports import EVIL, full_report
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from irprune.reporting.html import render


def opened(browser: webdriver.Chrome, data: dict[str, Any], folder: Path) -> webdriver.Chrome:
    path = folder / "page.html"
    path.write_text(render(data), "utf-8")
    browser.get_log("browser")
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    return browser


def shown_rows(browser: webdriver.Chrome) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#groups tbody tr")
    return [row.get_attribute("id") for row in rows if row.is_displayed()]


def test_the_page_shows_the_run(
    browser: webdriver.Chrome, report: dict[str, Any], tmp_path: Path
) -> None:
    page = opened(browser, report, tmp_path)
    text = page.find_element(By.TAG_NAME, "body").text
    for part in (
        "net</title>",
        "prune{latency=0.5}",
        "proved",
        "the latency",
        "50.0 %",
        "6.1 ms",
        "12.3 ms",
        "2 LayerNormalization",
        "one of mine",
        "82.0 % of the importance",
        "compacted equals masked base",
    ):
        assert part in text
    assert len(page.find_elements(By.CSS_SELECTOR, ".profile rect.now")) == 5
    assert len(page.find_elements(By.CSS_SELECTOR, ".map .line")) == 5
    assert len(page.find_elements(By.CSS_SELECTOR, "svg.scatter")) == 2
    assert page.find_elements(By.CSS_SELECTOR, ".stairs path")


def test_names_are_text_and_never_run(
    browser: webdriver.Chrome, report: dict[str, Any], tmp_path: Path
) -> None:
    page = opened(browser, report, tmp_path)
    assert page.title == "net</title>: pruning report"
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1
    assert page.find_element(By.CSS_SELECTOR, "#g0 summary").text == EVIL


def test_the_policy_stops_foreign_scripts(
    browser: webdriver.Chrome, report: dict[str, Any], tmp_path: Path
) -> None:
    page = opened(browser, report, tmp_path)
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title='taken'\";"
        "document.body.append(s)"
    )
    assert page.title != "taken"
    assert any("Content Security Policy" in row["message"] for row in page.get_log("browser"))


def test_groups_are_found_sorted_and_filtered(
    browser: webdriver.Chrome, report: dict[str, Any], tmp_path: Path
) -> None:
    page = opened(browser, report, tmp_path)
    assert shown_rows(page) == ["g0", "g1", "g2", "g3", "g4"]
    Select(page.find_element(By.ID, "order")).select_by_value("kept")
    assert shown_rows(page) == ["g0", "g2", "g4", "g1", "g3"]
    page.find_element(By.ID, "changed").click()
    assert shown_rows(page) == ["g0", "g2", "g4"]
    page.find_element(By.ID, "find").send_keys("LAYER4")
    assert shown_rows(page) == ["g4"]
    assert page.find_element(By.ID, "count").text == "1 of 5"
    page.execute_script("location.hash = '#g1'")
    assert "g1" in shown_rows(page)
    assert page.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_any_light(
    browser: webdriver.Chrome, report: dict[str, Any], tmp_path: Path, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page = opened(browser, report, tmp_path)
        width = page.execute_script("return document.documentElement.scrollWidth")
        background = page.find_element(By.TAG_NAME, "body").value_of_css_property(
            "background-color"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert width <= 360
    assert (sum(map(int, background[5:-1].split(",")[:3])) > 384) == (scheme == "light")


def test_a_thousand_groups(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = opened(browser, full_report(1000), tmp_path)
    page.find_element(By.ID, "find").send_keys("layer777.")
    assert shown_rows(page) == ["g777"]
    assert (tmp_path / "page.html").stat().st_size < 4_000_000
