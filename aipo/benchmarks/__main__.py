"""`python -m aipo.benchmarks assets|score|export`."""

import sys

if sys.argv[1:2] == ["assets"]:
    from aipo.benchmarks.official.assets import main

    raise SystemExit(main(sys.argv[2:]))
from aipo.benchmarks.official.command import main

raise SystemExit(main())
