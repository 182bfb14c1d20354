#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the kernel's tracing saw of the module.

  inside.py memory TRACE         judges the pages that were allocated, in a trace with stacks
  inside.py touch TRACING FILE...
                                 touches all pages of files in mappings, then in other ones; tells how often the module looked
                                 for a page the first time, how often the second time, and how many aliases there are then
"""

import mmap
import os
import re
import sys

import tap

PAGE = 4096
EVENT = re.compile(r"\s*(?P<task>.+)-(?P<pid>\d+)\s+\[\d+\] \S+\s+[\d.]+: (?P<name>\w+): ?(?P<fields>.*)")
FIELD = re.compile(r"(\w+)=(\S+)")
# Names of flags as the kernel prints them, with what they have in them
MOVABLE = re.compile(r"MOVABLE|GFP_TRANSHUGE")
IO = re.compile(r"\b(GFP_(KERNEL|USER|HIGHUSER|TRANSHUGE|NOFS)|__GFP_IO)")

# The module's functions, in Rust and in C
OURS = re.compile(r"_R\w+_6module|erofs_shared_")
# Those that ask for memory of no page cache: buffers of decoding, windows of verification, and what is kept for both
LOOKED_AT = re.compile(r"9FolioList6buffer|11open_window|10folio_pool")


def events(path):
    """The events of a trace: their task, number of the process, name, fields, and the functions on the stack."""
    found = None
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith(" => "):
                found[4].append(line[4:].strip())
            elif (match := EVENT.match(line)) and match["name"] in ("mm_page_alloc", "folio_asked"):
                if found:
                    yield found
                found = (match["task"], int(match["pid"]), match["name"], dict(FIELD.findall(match["fields"])), [])
    if found:
        yield found


def judge(what, all_of_it, bad):
    notes = [f"{len(bad)} of {len(all_of_it)}"]
    if bad:
        fields, stack = bad[0]
        notes += [fields["gfp_flags"], *stack]
    tap.result(all_of_it and not bad, what, *notes)
    print(f"# {len(all_of_it)} of these were seen")


def memory(path):
    """Only pages for a page cache are movable; what a fill allocates after its I/O does not wait for I/O."""
    asked, cached, others, worker = set(), [], [], []
    for task, pid, name, fields, stack in events(path):
        if name == "folio_asked":
            asked.add(pid)
        elif name == "mm_page_alloc":
            seen = fields, stack
            if pid in asked and "folio_alloc_noprof" in stack:
                asked.remove(pid)
                (others if any(map(LOOKED_AT.search, stack)) else cached).append(seen)
            # Stacks end with the work's function; merging has nothing to do with a fill.
            ours = [function for function in stack if OURS.match(function)]
            if task.startswith("kworker/") and ours and "5merge" not in ours[-1]:
                worker.append(seen)

    def having(flag, of, has=True):
        return [seen for seen in of if bool(flag.search(seen[0]["gfp_flags"])) == has]

    judge("memory of no page cache is not movable", others, having(MOVABLE, others))
    judge("pages for a page cache are", cached, having(MOVABLE, cached, False))
    judge("what follows the I/O of a fill allocates without waiting for I/O", worker, having(IO, worker))
    return tap.status()


def stat_of(name):
    with open(f"/sys/fs/erofs-shared/stats/{name}", encoding="utf-8") as f:
        return int(f.read())


def put(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def touch(tracing, *paths):
    def looked():
        with open(f"{tracing}/trace", encoding="utf-8", errors="replace") as f:
            return sum(f"-{os.getpid()} " in line and "page_looked_for" in line for line in f)

    files = [os.open(path, os.O_RDONLY) for path in paths]
    # The first mappings stay, so that nothing is merged meanwhile.
    views, counts = [], []
    for _ in range(2):
        new = [mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) for fd in files]
        views += new
        put(f"{tracing}/tracing_on", "1")
        for view in new:
            for at in range(0, len(view), PAGE):
                view[at]
        put(f"{tracing}/tracing_on", "0")
        counts.append(looked())
        put(f"{tracing}/trace", "")
    print(*counts, stat_of("aliased_blocks"))


if sys.argv[1] == "memory":
    sys.exit(memory(sys.argv[2]))
touch(*sys.argv[2:])
