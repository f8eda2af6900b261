"""What a user reads when a bucket does not do what was asked of it; never with a key or a signature in it.

`bucket.py` knows what is asked, this module what botocore and s3transfer raise.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as EndpointError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from ytrain_api.errors import SpecError, TransientError, YTrainError

_GIVE = (
    "Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or in a Secret under spec.secrets; on a "
    "laptop ~/.aws will do."
)


@contextmanager
def told(where: str, bucket: str, endpoint: str) -> Iterator[None]:
    """Turns what is raised into what a user reads.

    Args:
        where: what messages begin with, such as the URI.
        endpoint: the server, without whatever its address holds besides.

    Raises:
        SpecError: no access, no such bucket, or settings that cannot be.
        TransientError: the server cannot be reached, or the bucket changes meanwhile.
    """
    try:
        yield
    except ClientError as error:
        raise _refused(where, bucket, endpoint, error) from error
    except S3DownloadFailedError as error:  # what s3transfer makes of a 412 to a part of an object
        raise changed(f"{where}: {endpoint}") from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound) as error:
        raise SpecError(f"{where}: no credentials for the bucket ({error}). {_GIVE}") from error
    except (
        EndpointError,
        HTTPClientError,
        IncompleteReadError,
        FlexibleChecksumError,
        RetriesExceededError,
    ) as error:
        reason = error.last_exception if isinstance(error, RetriesExceededError) else error
        raise TransientError(
            f"{where}: {endpoint} cannot be reached, or broke off ({type(reason).__name__}), also "
            "after several attempts. See that AWS_ENDPOINT_URL names it and that it answers from here, then run "
            "the same command again."
        ) from error
    except BotoCoreError as error:
        raise SpecError(
            f"{where}: {error}. Check the name of the bucket, and AWS_ENDPOINT_URL and AWS_REGION in the "
            "environment or in a Secret under spec.secrets."
        ) from error


def _refused(where: str, bucket: str, endpoint: str, error: ClientError) -> YTrainError:
    """What an answer other than success means."""
    at = f"{where}: {endpoint}"
    said = error.response.get("Error", {})
    code = said.get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return SpecError(
            f"{at} has no bucket {bucket!r}. Check its name, and that AWS_ENDPOINT_URL and AWS_REGION are those "
            "of the place where it lies."
        )
    if status in (404, 412):
        return changed(at)
    if status in (401, 403) or code in ("ExpiredToken", "InvalidToken"):
        return SpecError(
            f"{at} does not let these credentials do that ({code}). Reading needs s3:ListBucket and s3:GetObject, "
            f"an output also s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload. {_GIVE}"
        )
    if status == 429 or status >= 500:
        return TransientError(f"{at} answers {status} ({code}), also after several attempts. Run it again later.")
    return SpecError(
        f"{at} answers {status} ({code}: {said.get('Message', '')}). Check the name of the bucket, and "
        "AWS_ENDPOINT_URL and AWS_REGION in the environment or in a Secret under spec.secrets."
    )


def changed(at: str) -> TransientError:
    """What lies there is not what the listing said."""
    return TransientError(f"{at} no longer has what it listed: somebody changes the bucket. Run it again.")
