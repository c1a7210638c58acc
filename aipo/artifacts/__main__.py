"""`python -m aipo.artifacts`."""

import sys

from aipo.artifacts.command import main

if __name__ == "__main__":
    sys.exit(main())
