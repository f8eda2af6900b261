"""The page: complete in every state, self-contained, safe against the text of the data."""

import re
from html.parser import HTMLParser

import pytest
from tests.unit.report.conftest import leaf, metrics_line, node, rl_figures, sample_file

from ytrain.report import write_report

pytestmark = pytest.mark.unit

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """The elements, the text and the nesting of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.elements)


def page_of(folder) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_a_finished_run_shows_all_its_parts(finished) -> None:
    page = page_of(finished)
    for words in (
        "support-bot", "Succeeded", "Better at sums", "0 of 64", "40 of 64", "Slightly worse", "KL", "Learning rate",
        "Gradient norm", "Throughput", "Token weights", "Gain against forgetting", "2 + 3 =", "train.jsonl:7",
        "the answer is empty", "Read back, its logits differ by", "1.0e-06", "torch",
        "Memory estimated", "4.00 GiB", "rank: 8",
    ):  # fmt: skip
        assert words in page.text, words
    assert "This run" not in page.text
    assert "merged model" not in page.text, "not measured"


def test_the_page_needs_nothing_from_elsewhere(finished) -> None:
    page = page_of(finished)
    assert page.count("script") == page.count("link") == page.count("img") == 0
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies and "default-src 'none'" in str(policies[0])
    for _, attributes in page.elements:
        assert not {"src", "href", "srcset"} & attributes.keys()
    assert "url(" not in (finished / "report.html").read_text()


def test_every_chart_is_described_in_words(finished) -> None:
    page = page_of(finished)
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert len(charts) == 6
    for chart in charts:
        assert set(str(chart["aria-labelledby"]).split()) <= ids
    assert "lowest" in page.text


def test_secrets_beside_the_job_stay_out(finished) -> None:
    page_of(finished)
    assert "do-not-show-this" not in (finished / "report.html").read_text()


def test_hostile_text_is_shown_as_text(run_folder) -> None:
    answer = {"prompt": HOSTILE, "expected": HOSTILE, "answer": HOSTILE, "correct": False}
    task = {"name": HOSTILE, "accuracy": 0.0, "correct": 0, "samples": 4, "examples": [answer]}
    point = {"tasks": [task], "retention": [{"name": HOSTILE, "loss": 1.0, "tokens": 3}]}
    folder = run_folder(
        metrics=[{"step": 1, "loss": 1.0}],
        evaluation={"before": {"step": 0, **point}, "after": {"step": 1, **point}},
        skipped=[{"source": HOSTILE, "line": 1, "reason": HOSTILE}],
        result={"state": "Failed", "failure": {"message": HOSTILE}, "versions": {HOSTILE: HOSTILE}},
        job=f"kind: YTrainJob\nmetadata:\n  name: |-\n    {HOSTILE}\n",
    )
    page = page_of(folder)
    assert page.count("script") == page.count("img") == 0
    assert page.text.count(HOSTILE) >= 10


@pytest.mark.parametrize(
    ("result", "metrics", "words"),
    [
        (None, None, "has not finished; it was last seen before its first step"),
        (None, [{"step": 5, "loss": 1.0}], "has not finished; it was last seen after step 5"),
        ({"state": "Preempted"}, [{"step": 5}], "was stopped after step 5 and can go on"),
        ({"state": "Failed", "failure": {"message": "out of memory"}}, [{"step": 5}], "failed after step 5"),
        ({"state": "Failed"}, None, "failed before its first step"),
    ],
)
def test_a_run_without_success_says_so_at_the_top(run_folder, result, metrics, words: str) -> None:
    page = page_of(run_folder(result=result, metrics=metrics))
    assert words in page.text
    assert page.text.index(words) < page.text.index("What was gained")


def test_a_folder_with_nothing_in_it_makes_a_page(run_folder) -> None:
    assert "nothing to draw" in page_of(run_folder(job=None)).text


def test_an_intermediate_evaluation_is_labelled_with_its_step(run_folder) -> None:
    start = {"step": 0, "retention": [{"name": "prose", "loss": 2.0, "tokens": 9}]}
    later = {"step": 30, "retention": [{"name": "prose", "loss": 2.5, "tokens": 9}]}
    assert "What was kept by step 30" in page_of(run_folder(evaluation={"before": start, "history": [later]})).text


def test_a_loss_that_became_nan_does_not_break_the_charts(run_folder) -> None:
    metrics = [{"step": step, "loss": 1.0 if step < 4 else float("nan")} for step in range(1, 8)]
    page = page_of(run_folder(metrics=metrics))
    assert "Loss" in page.text
    assert not [value for _, attributes in page.elements for value in attributes.values() if value and "nan" in value]


def test_an_evaluation_that_is_not_a_number_is_said_at_the_top(run_folder) -> None:
    points = [{"step": step, "retention": [{"name": "prose", "loss": loss, "tokens": 9}]} for step, loss in
              ((0, 2.0), (7, float("nan")))]  # fmt: skip
    page = page_of(run_folder(evaluation={"before": points[0], "after": points[1]}))
    said = "The evaluation after step 7 was not a number (NaN or infinite): loss of prose."
    assert page.text.index(said) < page.text.index("What was gained")
    assert "nan %" not in page.text


def test_thousands_of_steps_stay_a_small_page(run_folder) -> None:
    folder = run_folder(metrics=[{"step": step, "loss": 2.0, "gradientNorm": step % 9} for step in range(1, 20_001)])
    page_of(folder)
    assert (folder / "report.html").stat().st_size < 100_000


def test_a_run_with_rewards_shows_its_figures_and_samples(rewarded) -> None:
    page = page_of(rewarded)
    for words in (
        "The reward of the training prompts rose from 0.550 to 1.550", "Prompts with mixed rewards", "Entropy",
        "KL to the start", "Clipped tokens", "Tokens forwarded per answer", "one deviation to either side",
        "Gradient norm", "Samples", "When is it?", "train.jsonl:3", "3 answers from 2 beginnings and 1 fork",
        "\N{MULTIPLICATION SIGN} 3", "mean of 2",
    ):  # fmt: skip
        assert words in page.text, words
    for words in ("Token weights", "nats per supervised token", "weighted loss"):
        assert words not in page.text, words
    titles = [attributes["title"] for tag, attributes in page.elements if tag == "mark"]
    assert "1.50 nats" in str(titles[0])
    trees = [attributes for tag, attributes in page.elements if attributes.get("class") == "sampled"]
    assert len(trees) == 8
    assert [number for number, attributes in enumerate(trees) if "open" in attributes] == [0, 7]


def test_what_became_of_an_answer_is_said_beside_it(run_folder) -> None:
    leaves = [leaf(1, None, failure="it raised ValueError"), leaf(2, 0.25, ended=False), leaf(3, 0.0)]
    nodes = [node(-1, "It is"), node(0, ""), node(0, " late"), node(-1, "x" * 3_000)]
    page = page_of(run_folder(samples=[sample_file(1, nodes=nodes, leaves=leaves)]))
    for words in ("(empty) it raised ValueError none", "cut off 0.250", "2,680 characters left out"):
        assert words in page.text, words


def test_hostile_answers_are_shown_as_text(run_folder) -> None:
    nodes = [node(-1, HOSTILE + 900 * "." + HOSTILE), node(0, HOSTILE), node(0, HOSTILE)]
    leaves = [leaf(1, 1.0), leaf(2, None, failure=HOSTILE)]
    tree = sample_file(1, place=HOSTILE, prompt=HOSTILE, nodes=nodes, leaves=leaves)
    page = page_of(run_folder(samples=[tree]))
    assert page.count("script") == page.count("img") == 0
    assert page.text.count("onerror=alert(2)") == 7
    assert page.text.count(HOSTILE) == 5


def test_many_long_answers_stay_a_small_page(run_folder) -> None:
    nodes = [node(-1, "word " * 900), *(node(0, "word " * 900) for _ in range(300))]
    leaves = [leaf(number, 0.5) for number in range(1, 301)]
    metrics = [metrics_line(step, rl=rl_figures(step)) for step in range(1, 2_001)]
    trees = [sample_file(step, prompt="word " * 900, nodes=nodes, leaves=leaves) for step in range(1, 21)]
    folder = run_folder(metrics=metrics, samples=trees)
    page = page_of(folder)
    assert page.text.count("260 more answers are in samples/step-") == 8
    assert (folder / "report.html").stat().st_size < 400_000
