"""The pages in Chromium: no errors, no other host, accessible, by keys, on a phone, and without scripts."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from convatlas.explorer import serve

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
axe = pytest.importorskip("axe_playwright_python", reason="axe is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

PAGES = {
    "atlas": "/?year=2016..2016&params=..8M",
    "no fit": "/?year=1998&idea=residual",
    "network": "/networks/resnet18?open=stages.1.0",
    "too small": "/networks/alexnet?input=32",
    "compare": "/compare?a=vgg16&b=resnet50",
    "exercises": "/exercises?kind=volume&seed=3",
    "marked": "/exercises?kind=params&seed=3&answer=12",
    "unknown": "/networks/resnt50",
}
AXE = resources.files(axe).joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def base() -> str:
    """The address of a server in a thread of this process."""
    address: list[str] = []
    known = threading.Event()

    def started(text: str) -> None:
        address.append(text.rstrip("/"))
        known.set()

    options = {"port": 0, "workers": 0, "started": started}
    threading.Thread(target=serve, kwargs=options, daemon=True).start()
    assert known.wait(60)
    return address[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, base: str) -> Iterator[Any]:
    """Opens a page; in the end there were no errors, and no request to another host."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(path: str, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if _is_wrong(said) else None)
        page.on("request", lambda asked: None if _is_own(asked.url, base) else wrong.append(asked.url))
        page.goto(base + path)
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _is_wrong(said: Any) -> bool:
    """Chromium itself reports each answer of 4xx as an error."""
    return said.type == "error" and "Failed to load resource" not in said.text


def _is_own(url: str, base: str) -> bool:
    return url.startswith((f"{base}/", "data:", "blob:"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(opened: Any, name: str, scheme: str) -> None:
    page = opened(PAGES[name], 1280 if scheme == "light" else 360, color_scheme=scheme, bypass_csp=True)
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    wrong = [
        (each["id"], node["target"], node["failureSummary"])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= (1280 if scheme == "light" else 360)


def test_a_knob_swaps_the_numbers_and_keeps_the_address(opened: Any) -> None:
    page = opened("/networks/resnet18")
    before = page.inner_text("#total-macs")
    page.fill("#input", "448")
    page.press("#input", "Enter")
    page.wait_for_function("before => document.querySelector('#total-macs').innerText !== before", arg=before)
    assert "×4" in page.inner_text("#total-macs")
    page.wait_for_url("**/networks/resnet18?input=448")
    assert page.input_value("#input-slide") == "448"
    page.go_back()
    page.wait_for_function("before => document.querySelector('#total-macs').innerText === before", arg=before)


def test_too_small_an_input_offers_what_works(opened: Any) -> None:
    page = opened("/networks/alexnet")
    page.fill("#input", "32")
    page.press("#input", "Enter")
    page.wait_for_selector("#works:visible")
    assert "needs at least 67 px" in page.inner_text("#problem")
    page.click("#works")
    page.wait_for_url("**/networks/alexnet?input=67")
    assert page.is_hidden("#problem")


def test_rows_are_walked_by_keys_and_light_the_field(opened: Any) -> None:
    """The first convolution of VGG-16 sees 3 px; the second 5."""
    page = opened("/networks/vgg16?level=operations")
    page.focus("#part-rows tr[tabindex='0']")
    while page.locator("#part-rows tr[data-layer]").first.get_attribute("tabindex") != "0":
        page.keyboard.press("ArrowUp")
    assert "sees 3×3 px" in page.inner_text("#rf-says")
    while "sees 3×3 px" in page.inner_text("#rf-says"):
        page.keyboard.press("ArrowDown")
    assert "stages.0.conv2" in page.inner_text("#rf-says") and "sees 5×5 px" in page.inner_text("#rf-says")
    assert page.locator("#part-rows tr.on").count() == 1
    before = page.inner_text("#rf-says")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#rf-says") != before


def test_a_block_opens_by_enter(opened: Any) -> None:
    page = opened("/networks/resnet18")
    page.focus("#part-rows tr[data-layer='stages.0.0']")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-layer^='stages.0.0.conv1.conv']")
    assert "open=stages.0.0" in page.url


def test_search_and_keys_are_reached_by_keys(opened: Any) -> None:
    page = opened("/")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("vgg16")
    page.keyboard.press("Enter")
    page.wait_for_url("**/networks/vgg16")


def test_filters_swap_the_table(opened: Any) -> None:
    page = opened("/")
    page.click("#idea-dense-connectivity")
    page.wait_for_url("**idea=dense-connectivity")
    rows = page.locator("#part-table tbody tr").count()
    assert page.inner_text("#part-tally").startswith(f"{rows} of ")
    assert 0 < rows < 30


def test_an_image_of_one_s_own_lies_under_the_field(opened: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 200), "red").save(tmp_path / "mine.png")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    page = opened("/networks/resnet18")
    page.set_input_files("input[type=file]", tmp_path / "mine.png")
    page.wait_for_function("document.querySelector('#rf image').getAttribute('href').startsWith('blob:')")
    page.set_input_files("input[type=file]", tmp_path / "notes.txt")
    page.wait_for_selector(".problem:visible")
    assert "notes.txt is not" in page.inner_text("#side .problem")


@pytest.mark.parametrize("name", ["atlas", "network", "compare", "marked"])
def test_pages_read_without_scripts(opened: Any, name: str) -> None:
    page = opened(PAGES[name], java_script_enabled=False)
    text = page.inner_text("main")
    wanted = {
        "atlas": "resnet16_4_cifar",
        "network": "11,689,512",
        "compare": "138,357,544",
        "marked": "Not yet",
    }
    assert wanted[name] in text


def test_exercise_is_marked_by_keys(opened: Any) -> None:
    page = opened("/exercises?kind=volume&seed=1")
    page.fill("#answer", "1")
    page.keyboard.press("Enter")
    page.wait_for_url("**answer=1**")
    assert "Not yet" in page.inner_text("main")
