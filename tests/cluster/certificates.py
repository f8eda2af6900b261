"""Who everybody is: a certificate authority, a certificate for each component, and kubeconfigs that hold them.

A client certificate's CN is the user and its O the group, to which Kubernetes' own RBAC roles are bound.
"""

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

DAYS = 3650


@dataclass(frozen=True)
class Identity:
    """One certificate: file name, user, group, and for servers the names and addresses that they answer at."""

    name: str
    user: str
    group: str = ""
    answers_at: tuple[str, ...] = ()


CONTROL_PLANE = [
    Identity("admin", "admin", "system:masters"),
    Identity("kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("kube-apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
    Identity("dns", "system:coredns"),
    Identity("volumes", "ytrain:volumes"),
]


def issue(folder: Path, identities: list[Identity]) -> None:
    """Write what is missing: `ca`, the key pair `service-accounts`, and NAME.crt and NAME.key for every identity."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "ca.crt").exists():
        new_key(folder / "ca.key")
        openssl(
            "req", "-x509", "-new", "-key", folder / "ca.key", "-days", str(DAYS), "-subj", "/CN=ytrain-cluster",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature", "-out", folder / "ca.crt",
        )  # fmt: skip
    if not (folder / "service-accounts.pub").exists():
        new_key(folder / "service-accounts.key")
        openssl("pkey", "-in", folder / "service-accounts.key", "-pubout", "-out", folder / "service-accounts.pub")
    for identity in identities:
        if not (folder / f"{identity.name}.crt").exists():
            sign(folder, identity)


def sign(folder: Path, identity: Identity) -> None:
    """Write one identity's key and certificate."""
    key, request = folder / f"{identity.name}.key", folder / f"{identity.name}.csr"
    new_key(key)
    subject = (f"/O={identity.group}" if identity.group else "") + f"/CN={identity.user}"
    openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    uses = ["keyUsage=critical,digitalSignature,keyEncipherment", "extendedKeyUsage=clientAuth,serverAuth"]
    if identity.answers_at:
        names = (f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in identity.answers_at)
        uses.append(f"subjectAltName={','.join(names)}")
    extensions = folder / f"{identity.name}.ext"
    extensions.write_text("\n".join(uses))
    openssl(
        "x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-days", str(DAYS), "-extfile", extensions, "-out", folder / f"{identity.name}.crt",
    )  # fmt: skip


def write_kubeconfig(folder: Path, identity: str, server: str) -> Path:
    """A kubeconfig for one identity, with everything inside, so that the file can be copied elsewhere."""

    def inline(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": inline("ca.crt")}
    user = {
        "client-certificate-data": inline(f"{identity}.crt"),
        "client-key-data": inline(f"{identity}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ytrain", "cluster": cluster}],
        "users": [{"name": identity, "user": user}],
        "contexts": [{"name": "ytrain", "context": {"cluster": "ytrain", "user": identity}}],
        "current-context": "ytrain",
    }
    path = folder / f"{identity}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def new_key(path: Path) -> None:
    """A P-256 key: made in a millisecond, where RSA takes a second."""
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def openssl(*arguments: str | Path) -> None:
    """Run openssl, which Debian has everywhere; no Python package is needed for it."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
