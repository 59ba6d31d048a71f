"""Whoever looks at what a waiting statement would do, as the observer."""

from __future__ import annotations

from pgproxy.config import Settings
from pgproxy.impact import Probe


def probe_of(settings: Settings) -> Probe | None:
    """`approvals.ports.ImpactProbe`; None without an observer."""
    observer = settings.upstream.observer
    if observer is None:
        return None
    password = observer.password.get_secret_value() if observer.password is not None else None
    return Probe(settings.upstream.dsn, observer.user, password)
