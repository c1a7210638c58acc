"""One job of a sweep whose jobs run beside each other: `python -m aipo.command.job`, started by `aipo.pipeline.beside`.

What it is to run comes on stdin, once it has loaded its code; nothing: it is not needed. It ends with the process that
started it.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the job; the exit status is that of `aipo run`."""
    from aipo.command.run import told
    from aipo.pipeline.beside import read_job
    from aipo.pipeline.check import ConfigError
    from aipo.pipeline.cluster import run_asked
    from aipo.pipeline.ends import Terminated, end_with_parent
    from aipo.remote import redact

    end_with_parent()
    if not (given := sys.stdin.buffer.read()):
        return 0
    asked, place = read_job(given)
    try:
        run_asked(asked, place=place)
    except KeyboardInterrupt:
        return 130  # the process that started this one says so
    except Terminated as ended:
        return int(ended.code or 0)
    except ConfigError as error:
        print(redact(str(error)), file=sys.stderr)
        return 2
    except Exception as error:
        return told(error, with_frames=bool(asked.config.get("verbose")))
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:  # before the job itself began
        status = 130
    sys.exit(status)
