"""Random valid jobs survive dump and load unchanged; one wrong field in them gives a SpecError and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_jobs import FIELDS, SPEC, as_job, leaves, specs

from ytrain_api import dump_job, load_job, parse_job
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit

YAML_PIECES = (
    "kind: YTrainJob",
    "spec:",
    "\n",
    "  ",
    "- ",
    "{",
    "}",
    "[",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "!!int ",
    "x: 1",
    "---",
    "'",
)

FEW = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@FEW
@given(specs())
def test_dump_and_load_round_trip(tmp_path: Path, spec: dict[str, Any]) -> None:
    try:
        job = parse_job(as_job(spec))
    except SpecError as error:  # a duration of zero is the one value that the schema lets through
        assert all("longer than zero" in line for line in str(error).splitlines()), error
        return
    path = tmp_path / "job.yaml"
    path.write_text(dump_job(job), encoding="utf-8")
    assert load_job(path).job == job


@FEW
@given(specs(), st.data())
def test_a_value_of_a_wrong_type_is_a_spec_error(spec: dict[str, Any], data: st.DataObject) -> None:
    """A list within a list is what no field takes."""
    *above, last = data.draw(st.sampled_from(leaves(spec, SPEC)))
    block: Any = spec
    for part in above:
        block = block[part]
    block[last] = [[]]
    with pytest.raises(SpecError, match=r"^spec\."):
        parse_job(as_job(spec))


@FEW
@given(specs(), st.text(min_size=1))
def test_an_unknown_field_is_a_spec_error(spec: dict[str, Any], name: str) -> None:
    assume(name not in FIELDS)
    with pytest.raises(SpecError, match="unknown field"):
        parse_job(as_job(spec | {name: 1}))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(YAML_PIECES), max_size=12).map("".join))
def test_any_text_is_a_job_or_a_spec_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        load_job(path)
