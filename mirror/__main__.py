"""`python -m mirror`: the same as `registry-mirror`."""

from .cli import main

if __name__ == "__main__":
    main()
