#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judges what the plugin has found: atomic.py SYMBOLS OUT LIMIT STEP...

OUT.1, OUT.2, ... belong to the steps; tests/bench/plugin/atomic.c says what is in them. SYMBOLS is of the form of /proc/kallsyms.
A step fails if a section in which the module's code ran had more than LIMIT instructions, without the longest call of the kernel in
it, which may have CALL. Sections in which it did not run are told.
"""

import bisect
import sys
from pathlib import Path

import tap

# What the page allocator does at once at most, in an allocation or a kfree(): some 2,000 pages
CALL = 1_000_000


def load(path):
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        address, kind, symbol, *_ = line.split()
        if kind in "tTwW":
            found.append((int(address, 16), symbol))
    return sorted(found)


class Names:
    """Addresses as functions; Rust's names are shown by what is left of them without hashes."""

    def __init__(self, path):
        self.found = load(path)
        self.addresses = [address for address, _ in self.found]

    def __call__(self, text):
        address = int(text, 16)
        if not address:
            return "-"
        at = bisect.bisect(self.addresses, address) - 1
        return f"{self.found[at][1]}+{address - self.addresses[at]:#x}"


def main():
    symbols, out, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    name = Names(symbols)
    longest = {"own": (0, ""), "other": (0, "")}
    for number, step in enumerate(sys.argv[4:], 1):
        path = Path(f"{out}.{number}")
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        most = {"own": 0, "other": 0}
        notes = [] if lines else ["the plugin has said nothing"]
        good = bool(lines)
        for kind, length, call, within, start, end, first, last, before in lines:
            length, call = int(length), int(call)
            most[kind] = max(most[kind], length - call)
            bad = kind == "own" and (length - call > limit or length > limit + CALL)
            good &= not bad
            if bad or length > limit:
                notes.append(f"{kind}: {length:,} instructions, {int(within):,} of the module's, {call:,} in one call, from {name(start)}"
                             f" to {name(end)} in {name(before)}; the module's: from {name(first)} to {name(last)}")
        tap.result(good, f"{step}: the processor is given back in time", *notes)
        for note in notes if good else ():
            print(f"# {note}")
        print(f"# {most['own']:,} instructions at once with the module, {most['other']:,} without")
        for kind, length in most.items():
            longest[kind] = max(longest[kind], (length, step))
    for kind, (length, step) in longest.items():
        print(f"# longest, {kind}: {length:,} instructions ({step})")
    return tap.status()


sys.exit(main())
