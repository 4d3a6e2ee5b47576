"""Settings shared by every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# Times are never asserted, so no deadline; print_blob makes a failure on another machine reproducible.
settings.register_profile("einstride", deadline=None, print_blob=True)
settings.load_profile("einstride")

# A shell starts what it runs in the background with Ctrl-C ignored, and every child would inherit that: the tests that
# interrupt one would wait for it in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
