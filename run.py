"""Train and judge. `python run.py --help` lists the choices; `-m` sweeps over comma-separated values."""

from aipo.command.run import command

if __name__ == "__main__":
    command()
