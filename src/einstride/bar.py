"""The progress bar of what takes longer than a second: on a terminal only, erased when done."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_SECONDS = 1.0


@contextmanager
def progress() -> Iterator[None]:
    """Show on stderr how far an einsum is that takes longer than a second; the bar is erased when it is done.

    Nothing is shown where stderr is not a terminal or the environment has ``EINSTRIDE_PROGRESS=0``.

    Raises:
        ImportError: the terminal is there, but the rich library of the ``cli`` extra is not.

    >>> import numpy as np
    >>> from einstride import einsum
    >>> with progress():
    ...     total = einsum("ij,jk->", np.ones((2, 3)), np.ones((3, 4)))
    >>> print(total)
    24.0
    """
    with bar("einsum") as tell:
        before = _core.set_progress(tell)
        try:
            yield
        finally:
            _core.set_progress(before)


@contextmanager
def bar(text: str) -> Iterator[Callable[[float | None], None]]:
    """A function that shows what fraction of some work is done: 0 to 1, or None where it ended early."""
    if not sys.stderr.isatty() or os.environ.get("EINSTRIDE_PROGRESS") == "0":
        yield lambda done: None
        return
    if find_spec("rich") is None:
        raise ImportError('the progress bar needs the rich library: pip install "einstride[cli]"')
    shown = _Bar(text)
    try:
        yield shown.tell
    finally:
        shown.tell(None)


class _Bar:
    """Follows one thread's work at a time: the first that speaks, until its work ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._thread: int | None = None
        self._since = 0.0
        self._progress: Progress | None = None

    def tell(self, done: float | None) -> None:
        thread = threading.get_ident()
        if self._thread is None:
            self._thread, self._since = thread, time.monotonic()
        if self._thread != thread:
            return
        if done is None or done >= 1:
            self._thread = None
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
        elif self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, refresh=True)
        elif time.monotonic() - self._since >= PATIENCE_SECONDS:
            self._progress = self._start(done)

    def _start(self, done: float) -> Progress:
        from rich.console import Console
        from rich.progress import Progress

        # What the program prints meanwhile goes where it would have gone.
        shown = Progress(
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = shown.add_task(self._text, total=1)
        shown.start()
        shown.update(task, completed=done, refresh=True)
        return shown
