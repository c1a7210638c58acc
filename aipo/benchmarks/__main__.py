"""Run the command line of `aipo.benchmarks.command`."""

from aipo.benchmarks.command import main

raise SystemExit(main())
