"""``python -m wiesel …``: the command line, where the ``wiesel`` script is not on the path."""

from wiesel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
