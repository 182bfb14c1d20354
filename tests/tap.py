# SPDX-License-Identifier: GPL-2.0
"""The lines of a Python program that a test of this directory runs: `numbered` in lib.sh makes TAP of them."""

_failures = 0


def result(good, what, *notes):
    """One check: "ok WHAT", or what is to be known of it and "not ok WHAT"."""
    global _failures
    for note in notes if not good else ():
        print(f"# {note}")
    print(f"{'ok' if good else 'not ok'} {what}", flush=True)
    _failures += not good


def status():
    """What the program ends with, for sys.exit()."""
    return _failures > 0 or None
