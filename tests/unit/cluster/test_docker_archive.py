"""What of a docker archive goes to a node that has some of its layers."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.cluster.docker_archive import content, full_name, opened
from tests.cluster.oci_archive import PAUSE, add, as_json, digest, frame, path_in

pytestmark = pytest.mark.unit

BASE, OURS = b"much", b"little"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """As `docker save` writes it."""
    config = as_json({"rootfs": {"diff_ids": [digest(BASE), digest(OURS)]}})
    entry = {"Config": "c.json", "RepoTags": ["ytrain/trainer:1"], "Layers": ["base.tar", "ours.tar"]}
    files = {"base.tar": BASE, "ours.tar": OURS, "c.json": config, "manifest.json": as_json([entry])}
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, blob in files.items():
            add(tar, name, blob)
    return tmp_path / "image.tar"


@pytest.mark.parametrize(
    ("present", "sent"), [((), [BASE, OURS]), ((digest(BASE),), [OURS]), ((digest(BASE), digest(OURS)), [])]
)
def test_only_missing_layers_are_sent(archive: Path, present: tuple[str, ...], sent: list[bytes]) -> None:
    stream = io.BytesIO()
    with opened(archive) as image:
        assert image is not None
        image.write_missing(stream, present)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        [entry] = json.loads(content(tar, "index.json"))["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == "docker.io/ytrain/trainer:1"
        manifest = json.loads(content(tar, path_in(entry["digest"])))
        assert [layer["size"] for layer in manifest["layers"]] == [len(BASE), len(OURS)]
        assert [layer["digest"] for layer in manifest["layers"]] == [digest(BASE), digest(OURS)]
        assert digest(content(tar, path_in(manifest["config"]["digest"]))) == manifest["config"]["digest"]
        layers = {path_in(digest(layer)) for layer in (BASE, OURS)} & set(tar.getnames())
        assert layers == {path_in(digest(layer)) for layer in sent}


def test_any_other_archive_is_left_as_it_is(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "oci.tar", "w") as tar:
        for path, blob in frame(PAUSE, as_json({}), {}).items():
            add(tar, path, blob)
    with opened(tmp_path / "oci.tar") as image:
        assert image is None


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("ytrain/trainer:1", "docker.io/ytrain/trainer:1"),
        ("python:3", "docker.io/library/python:3"),
        ("localhost/probe:1", "localhost/probe:1"),
        ("example.com/a/b:1", "example.com/a/b:1"),
        ("host:5000/a:1", "host:5000/a:1"),
    ],
)
def test_names(given: str, full: str) -> None:
    assert full_name(given) == full
