"""Archives out of an OCI layout: complete, or without what a node has; and what is kept of a layout."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.image.layout import blobs_of, config_of, keep_only, write_archive

pytestmark = pytest.mark.unit


def add_blob(layout: Path, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    path = layout / "blobs/sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def add_image(layout: Path, reference: str, *layers: bytes) -> None:
    config = add_blob(layout, json.dumps({"config": {"User": "1000:1000"}, "of": reference}).encode())
    manifest = {"config": config, "layers": [add_blob(layout, layer) for layer in layers]}
    entry = add_blob(layout, json.dumps(manifest).encode()) | {
        "annotations": {"org.opencontainers.image.ref.name": reference}
    }
    path = layout / "index.json"
    index = json.loads(path.read_text()) if path.is_file() else {"schemaVersion": 2, "manifests": []}
    index["manifests"].append(entry)
    path.write_text(json.dumps(index))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Two trainers over the same base, and an operator."""
    add_image(tmp_path, "ytrain/trainer:1", b"base", b"dependencies", b"code")
    add_image(tmp_path, "ytrain/trainer:2", b"base", b"dependencies", b"newer code")
    add_image(tmp_path, "ytrain/operator:1", b"base", b"operator")
    return tmp_path


def contents(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def archive_of(layout: Path, reference: str, without: frozenset[str] = frozenset()) -> dict[str, bytes]:
    out = io.BytesIO()
    write_archive(layout, reference, f"docker.io/{reference}", out, without=without)
    return contents(out.getvalue())


def test_an_archive_holds_one_image_under_the_name_that_containerd_takes(layout: Path) -> None:
    files = archive_of(layout, "ytrain/trainer:2")
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/ytrain/trainer:2"
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    assert set(blobs) == {blob.path for blob in blobs_of(layout, "ytrain/trainer:2")}
    for name, content in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    assert b"newer code" in blobs.values()
    assert b"code" not in blobs.values()


def test_an_archive_leaves_out_what_a_node_has(layout: Path) -> None:
    known = frozenset(blob.digest for blob in blobs_of(layout, "ytrain/trainer:1"))
    files = archive_of(layout, "ytrain/trainer:2", without=known)
    blobs = [content for name, content in files.items() if name.startswith("blobs/")]
    assert b"newer code" in blobs
    assert len(blobs) == 3  # and its configuration and manifest
    assert b"dependencies" not in blobs


def test_the_configuration_is_read(layout: Path) -> None:
    assert config_of(layout, "ytrain/operator:1")["config"] == {"User": "1000:1000"}


def test_what_no_kept_image_has_is_removed(layout: Path) -> None:
    kept = archive_of(layout, "ytrain/trainer:2"), archive_of(layout, "ytrain/operator:1")
    keep_only(layout, lambda name: name != "ytrain/trainer:1")
    assert kept == (archive_of(layout, "ytrain/trainer:2"), archive_of(layout, "ytrain/operator:1"))
    assert b"code" not in [path.read_bytes() for path in layout.glob("blobs/*/*")]
    with pytest.raises(KeyError):
        blobs_of(layout, "ytrain/trainer:1")
