"""``python -m einstride`` is the ``einstride`` command."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
