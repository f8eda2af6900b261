"""Times as Kubernetes writes them: UTC, whole seconds."""

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """2026-01-31T12:00:00Z."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def from_text(text: str | None) -> datetime | None:
    """The moment that an API object names; None where it names none."""
    return datetime.fromisoformat(text) if text else None
