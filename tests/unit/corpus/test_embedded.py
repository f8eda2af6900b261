"""Data inside the page's script element: whatever the texts hold, they come out as they were and cannot leave it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.corpus.page import embedded

pytestmark = pytest.mark.unit


@given(st.recursive(st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028"]), st.lists, max_leaves=5))
def test_embedded_data_are_what_they_were_and_hold_no_markup(data: object) -> None:
    text = embedded(data)
    assert json.loads(text) == data
    assert not set("<>&") & set(text) and text.isascii()
