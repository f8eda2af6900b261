"""Fetches models and data from the Hugging Face Hub into its local cache, at a pinned commit.

Of a model only weights as safetensors, configuration and tokenizer are fetched: nothing that could execute code.
"""

from collections.abc import Collection
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ytrain.sources.location import Location
from ytrain_api.errors import SpecError, TransientError

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_NOT_FOR_TRANSFORMERS = ["onnx/*", "original/*", "openvino/*"]


def fetch(location: Location, suffixes: Collection[str]) -> tuple[Path, str]:
    """Fetches what a location names.

    Args:
        suffixes: file types to fetch of a data set, such as `.jsonl`.

    Returns:
        The local snapshot of the repository, and its commit.

    Raises:
        SpecError: no such repository or revision, no access, or a model without safetensors.
        TransientError: the Hub does not answer and the cache has no copy.
    """
    try:
        folder = Path(
            snapshot_download(
                location.root,
                repo_type="dataset" if location.dataset else "model",
                revision=location.revision,
                allow_patterns=_patterns(location, suffixes),
                ignore_patterns=[] if location.dataset else _NOT_FOR_TRANSFORMERS,
            )
        )
    except GatedRepoError as error:
        raise SpecError(
            f"{location.uri}: access is granted by its owners only. Ask for it on the repository's page, and give a"
            " token that has it as HF_TOKEN in the environment, or in a Secret under spec.secrets."
        ) from error
    except RevisionNotFoundError as error:
        raise SpecError(
            f"{location.uri}: the repository has no revision {location.revision!r}. Name a branch, tag or commit of it."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SpecError(
            f"{location.uri}: the Hub has no such {'data set' if location.dataset else 'model'}, or the token HF_TOKEN"
            " may not see it. Check the name; data sets are written hf://datasets/owner/name."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TransientError(
            f"{location.uri}: the Hub cannot be reached and the local cache has no copy ({type(error).__name__})."
            f" Try again with a network, or fetch it elsewhere (hf download {location.root}) and name the folder"
            " as file:///path or pvc://claim/path."
        ) from error
    if not location.dataset and not any((folder / location.path).glob("*.safetensors")):
        raise SpecError(
            f"{location.uri}: holds no weights as safetensors. Pickled weights (.bin, .pt) are not loaded, because they"
            " can execute code. Convert the model with save_pretrained and name the folder."
        )
    return folder, folder.name


def _patterns(location: Location, suffixes: Collection[str]) -> list[str]:
    if not location.dataset:
        prefix = f"{location.path}/" if location.path else ""
        return [prefix + pattern for pattern in MODEL_FILES]
    if not location.path:
        return [f"*{suffix}" for suffix in sorted(suffixes)]
    return [location.path, *(f"{location.path}/*{suffix}" for suffix in sorted(suffixes))]
