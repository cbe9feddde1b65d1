"""Starts the `rarefind` command; `python -m app` is the same.

Processes that decode images begin by importing what the command was started from. So this file
imports nothing of its own: the command, and torch and the web with it, stay out of them.
"""


def main() -> None:
    """Run the command line."""
    from app.cli import app

    app()


if __name__ == "__main__":
    main()
