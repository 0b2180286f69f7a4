"""`python -m brownout` is `brownout`."""

from __future__ import annotations

import sys

from brownout.cli import main

if __name__ == "__main__":
    sys.exit(main())
