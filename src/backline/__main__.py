"""``python -m backline``."""

from __future__ import annotations

import sys

from backline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
