"""`python -m lodestore` is the command line."""

from lodestore.cli import main

if __name__ == "__main__":
    main()
