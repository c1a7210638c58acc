"""`python -m aipo.command`, the same as `aipo`."""

from aipo.command.app import main

if __name__ == "__main__":
    main()
