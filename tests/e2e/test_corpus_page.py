"""corpus.html in a real browser: it shows what was found, by mouse and by keyboard alone, and lets no data act."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from playwright.sync_api import Page, sync_playwright
from run_folders import read_lines, write_job

pytestmark = pytest.mark.e2e

HOSTILE = "</script><script>window.acted=1</script><img src=x onerror=window.acted=2><!--{{7*7}}"
STORY = "once upon a time a fox met a hare in a wood where nobody had ever been before and they talked until night fell"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def run(ytrain: Commands, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus job over records that try to act."""
    directory = tmp_path_factory.mktemp("page")
    records = [{"prompt": f"what is {i} and {i + 1}?", "response": f"it is {2 * i + 1}"} for i in range(40)]
    records += [{"prompt": "tell", "response": STORY}, {"prompt": "tell", "response": STORY + " again"}]
    records += [{"prompt": HOSTILE, "response": HOSTILE}, {"prompt": HOSTILE, "response": HOSTILE + " again"}]
    (directory / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    changes: dict[str, Any] = {"sft": ..., "optimization": ..., "corpus": {}, "data.maxTokens": 400}
    write_job(directory, model_folder, changes | {"data.train": [{"source": "file://./records.jsonl"}]})
    ytrain(directory, "run", "tiny.yaml", "--workdir", "run").expect(0, "44 records scored")
    return directory / "run"


@pytest.fixture
def page(run: Path) -> Iterator[Page]:
    """The page, opened; what it asks for, what it complains of and what it pops up is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, f"no browser: install one of {', '.join(BROWSERS)}; `make test` installs the first"
    complaints: list[str] = []
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not run as root, as which CI has it.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=180_000)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(180_000)  # milliseconds
        page.on("request", lambda request: complaints.append(f"request {request.url}"))
        page.on("console", lambda message: complaints.append(f"console {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        address = (run / "corpus.html").as_uri()
        page.goto(address)
        yield page
        browser.close()
    assert complaints == [f"request {address}"]


def title(page: Page) -> str:
    """Number and place of the record that is shown."""
    return page.locator("#record h3").inner_text()


def test_a_person_clicks_through_what_was_found(page: Page, run: Path, tmp_path: Path) -> None:
    lines = read_lines(run / "output/scored.jsonl")

    def place(rank: int) -> str:
        return f"#{rank} {lines[rank - 1]['source']}:{lines[rank - 1]['line']}"

    assert page.locator("h1").inner_text() == "tiny: what is in the corpus"
    assert "44 most suspicious of 44 records" in page.locator("main").inner_text()
    assert title(page) == place(1) and page.locator("#position").inner_text() == "1 of 44"
    page.locator("#list button").nth(2).click()
    assert title(page) == place(3)
    page.locator("#after").click()
    assert title(page) == place(4)

    paints = {}
    for colour in ("loss", "entropy", "divergence"):
        page.locator(f"#colours button[data-colour={colour}]").click()
        assert page.locator("#record .scale").inner_text().startswith(f"{colour}:")
        paints[colour] = page.locator("#record .tokens span").evaluate_all("all => all.map(t => t.style.background)")
    assert len({tuple(paint) for paint in paints.values()}) == 3
    assert len(set(paints["divergence"])) > 2
    assert page.locator("#record .tokens span").first.get_attribute("title").startswith("loss ")  # type: ignore[union-attr]

    wrong = [line["rank"] for line in lines if line["class"] == "hard"]
    page.locator("#class").select_option("hard")
    assert page.locator("#position").inner_text() == f"1 of {len(wrong)}" and title(page) == place(wrong[0])
    page.locator("#class").select_option("")
    page.locator("#search").fill("what is 7 and 8")
    assert page.locator("#position").inner_text() == "1 of 1"
    assert "what is 7 and 8?" in page.locator("#record .prompt").inner_text()

    assert page.locator("#grid rect").count() > 5 and page.locator("#map circle").count() == 44
    pair = page.locator("#pairs .pair").first.inner_text()
    assert STORY in pair and STORY + " again" in pair
    picture = page.screenshot(path=tmp_path / "corpus.png", full_page=True)
    assert len(picture) > 50_000  # bytes; an empty page of this size has a tenth


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    first = title(page)
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert page.locator("#position").inner_text() == "3 of 44"
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    assert title(page) == first
    page.keyboard.press("2")
    assert page.locator("#colours [aria-pressed=true]").inner_text() == "loss"

    focused = "document.activeElement.closest('#class, #search, #colours, #list, #after')?.id"
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
        if reached[-1] == "list" and "colours" in reached:
            break
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#position").inner_text() == "2 of 44"
    assert page.evaluate(focused) == "list"
    page.keyboard.press("j")
    assert page.locator("#position").inner_text() == "3 of 44"
    assert {"class", "search", "colours"} <= set(reached)
    page.locator("#search").focus()
    page.keyboard.type("jk2")  # letters of a search are no commands
    assert page.locator("#search").input_value() == "jk2"
    assert page.locator("#position").inner_text() == "none"


def test_text_of_the_data_stays_text(page: Page, run: Path) -> None:
    page.locator("#search").fill("window.acted")
    assert page.locator("#position").inner_text() == "1 of 2"
    assert HOSTILE in page.locator("#record .tokens").inner_text()
    assert HOSTILE in page.locator("#record .prompt").inner_text()
    assert HOSTILE in page.locator("#pairs").inner_text()
    assert page.evaluate("window.acted") is None
    assert page.evaluate("document.images.length + document.querySelectorAll('main script').length") == 0
    html = (run / "corpus.html").read_text()
    assert html.count("<script") == html.count("</script") == 2 and "default-src 'none'" in html
    before, _, data = html.partition('<script type="application/json" id="data">')
    code = before + data.partition("</script>")[2]
    for forbidden in ("eval(", "innerHTML", "fetch(", " src=", " href=", "url("):
        assert forbidden not in code
