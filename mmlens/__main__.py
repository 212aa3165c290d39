"""`python -m mmlens` is `mmlens`."""

from mmlens.cli.app import main

if __name__ == "__main__":
    main()
