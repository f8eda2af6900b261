"""What a user reads when a bucket does not do what was asked of it; never with a key or a signature in it.

`bucket.py` knows what is asked, this module what botocore and s3transfer raise.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as EndpointError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from ytrain_api.errors import SpecError, TransientError, YTrainError

_GIVE = (
    "Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or in a Secret under spec.secrets; on a "
    "laptop ~/.aws will do."
)


class Redirected(Exception):
    """The server sent us elsewhere and did not say to which region."""


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
    except Redirected as error:
        raise _redirected(f"{where}: {endpoint}") from error
    except SSLError as error:
        reason = _words(error)
        if "EOF" in reason:  # a server that ends or begins meanwhile
            raise _unreachable(where, endpoint, reason) from error
        raise SpecError(
            f"{where}: no TLS with {endpoint} ({reason}). Write http:// in AWS_ENDPOINT_URL if it speaks none; "
            "if its certificate is of an authority of your own, name the file with that one's in AWS_CA_BUNDLE."
        ) from error
    except (
        EndpointError,
        HTTPClientError,
        IncompleteReadError,
        FlexibleChecksumError,
        RetriesExceededError,
    ) as error:
        last = error.last_exception if isinstance(error, RetriesExceededError) else error
        raise _unreachable(where, endpoint, _words(last)) from error
    except BotoCoreError as error:
        raise SpecError(
            f"{where}: {str(error).rstrip('.')}. Check the name of the bucket, and AWS_ENDPOINT_URL and AWS_REGION in "
            "the environment or in a Secret under spec.secrets."
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
    if code in ("NoSuchKey", "NoSuchUpload") or status == 412:
        return changed(at)
    if status in (301, 302, 307, 308):
        return _redirected(at)
    if status in (401, 403) or code in ("ExpiredToken", "InvalidToken"):
        return SpecError(
            f"{at} does not let these credentials do that ({code} for {error.operation_name}). Reading needs "
            "s3:ListBucket and s3:GetObject, an output also s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload. "
            f"{_GIVE}"
        )
    if status == 429 or status >= 500:
        return TransientError(
            f"{at} answers {status} ({code}), also after several attempts. Run it again later; if it stays so, see "
            "that AWS_ENDPOINT_URL names a server of buckets, and not a page for people."
        )
    return SpecError(
        f"{at} answers {status} ({code}: {said.get('Message', '')}). Check the name of the bucket, and "
        "AWS_ENDPOINT_URL and AWS_REGION in the environment or in a Secret under spec.secrets."
    )


def changed(at: str) -> TransientError:
    """What lies there is not what the listing said."""
    return TransientError(f"{at} no longer has what it listed: somebody changes the bucket. Run it again.")


def _redirected(at: str) -> SpecError:
    return SpecError(
        f"{at} redirects to another address. Write that one in AWS_ENDPOINT_URL: often https:// instead of http://, or "
        "the server of buckets instead of its page for people."
    )


def _unreachable(where: str, endpoint: str, reason: str) -> TransientError:
    return TransientError(
        f"{where}: {endpoint} cannot be reached, or broke off ({reason}), also after several attempts. See that "
        "AWS_ENDPOINT_URL names it, with http:// or https:// as it speaks, and that it answers from here, then run the "
        "same command again."
    )


def _words(error: Exception) -> str:
    """What the network said, without the address: that may hold a password."""
    name = type(error).__name__
    if not isinstance(error, EndpointError | ConnectionClosedError):
        return name
    return f"{name}: {re.sub(r'^[^ ]*[(].*?[)]: ', '', str(error.kwargs.get('error', '')))}"
