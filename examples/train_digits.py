"""Train on handwritten digits, be killed in the middle of a save, and resume as if nothing had happened.

Usage:
    python examples/train_digits.py                          the whole story, on an S3 server of its own
    python examples/train_digits.py --url s3://bucket/demo   the same on a real store (also gs://, az://, a folder)
    python examples/train_digits.py --train-only --url runs/1    only the trainer: stop it, start it again
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from digits.trainer import Settings, print_event, train


def parse_arguments() -> argparse.Namespace:
    """Read the command line; wrong usage ends the program with exit code 2."""
    defaults = Settings(url="")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="where checkpoints go (default: an S3 server started for the occasion)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="steps to train (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=defaults.save_every, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of everything random")
    parser.add_argument("--hidden", type=int, default=defaults.hidden, help="width of the hidden layers")
    parser.add_argument("--kill-at", type=int, help="kill in the first save at or after this step (default: halfway)")
    parser.add_argument("--train-only", action="store_true", help="train in this process, printing lines of JSON")
    arguments = parser.parse_args()
    if arguments.train_only and arguments.url is None:
        parser.error("--train-only needs --url")
    if arguments.steps < 1 or arguments.save_every < 1 or arguments.hidden < 1:
        parser.error("--steps, --save-every and --hidden must be at least 1")
    if arguments.kill_at is None:
        arguments.kill_at = arguments.steps // 2
    # At least one checkpoint before the kill, and one save left to kill.
    if not (arguments.train_only or arguments.save_every < arguments.kill_at <= arguments.steps):
        parser.error("--kill-at must lie after the first checkpoint (--save-every) and within --steps")
    return arguments


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    arguments = parse_arguments()
    settings = Settings(
        url=arguments.url or "",
        steps=arguments.steps,
        save_every=arguments.save_every,
        seed=arguments.seed,
        hidden=arguments.hidden,
    )
    try:
        if arguments.train_only:
            asyncio.run(train(settings, print_event))
            return 0
        # Imported here: the trainer alone needs neither the server nor the tables.
        from digits.supervisor import tell_story  # noqa: PLC0415

        return 0 if asyncio.run(tell_story(settings, arguments.kill_at)) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
