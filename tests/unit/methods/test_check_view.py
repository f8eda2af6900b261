"""How samples and times are worded on the screen."""

import pytest

from ytrain.cli.check_view import LEARNED, about, marked, shortened, visible

pytestmark = pytest.mark.unit

RUNS = [("<user>[b]", False), ("yes", True), ("\n", False), ("no", True)]


def test_learned_spans_stand_between_marks_where_there_is_no_colour() -> None:
    assert marked(RUNS, coloured=False).plain == "<user>[b]«yes»\n«no»"


def test_learned_spans_are_coloured_on_a_terminal() -> None:
    text = marked(RUNS, coloured=True)
    assert text.plain == "<user>[b]yes\nno"
    assert [(text.plain[span.start : span.end], span.style) for span in text.spans] == [
        ("yes", LEARNED),
        ("no", LEARNED),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("abcdefghij", "abcdefghij"),
        ("a" * 5 + "x" * 1234 + "b" * 5, "aaaaa [... 1,234 characters ...] bbbbb"),
    ],
)
def test_a_long_text_loses_its_middle(text: str, shown: str) -> None:
    assert shortened(text, 10) == shown


@pytest.mark.parametrize(("text", "shown"), [("a\n\tb", "a\n\tb"), ("\x1b[0m", "␛[0m"), ("\r\x00\x7f", "␍␀␡")])
def test_control_characters_are_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "less than a minute"), (61, "about 1 min"), (185, "about 3 min"), (7200, "about 2 h"), (2e6, "about 23 days")],
)
def test_times_are_as_rough_as_they_are_uncertain(seconds: float, words: str) -> None:
    assert about(seconds) == words
