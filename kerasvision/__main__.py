"""``python -m kerasvision`` is the command ``kerasvision``."""

from kerasvision.cli import main

if __name__ == "__main__":
    main()
