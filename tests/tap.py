# SPDX-License-Identifier: GPL-2.0
"""What came of the tests of a Python program, in lines of TAP without a plan: `results` in lib.sh reads them."""

_count = _failures = 0


def result(good, what, *notes):
    """One check: "ok N WHAT", or what is to be known of it and "not ok N WHAT"."""
    global _count, _failures
    _count += 1
    for note in notes if not good else ():
        print(f"# {note}")
    print(f"{'ok' if good else 'not ok'} {_count} {what}", flush=True)
    _failures += not good


def status():
    """What the program ends with, for sys.exit()."""
    return _failures > 0 or None
