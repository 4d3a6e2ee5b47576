"""Settings shared by every test."""

from __future__ import annotations

from hypothesis import settings

# Times are never asserted, so no deadline; print_blob makes a failure on another machine reproducible.
settings.register_profile("einstride", deadline=None, print_blob=True)
settings.load_profile("einstride")
