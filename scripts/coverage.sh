#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# scripts/coverage.sh [PERCENT]
#
# Which lines of the format core (src/format) its tests on the host run: a table by file, in Markdown.  The others are
# listed in build/coverage/not-run.  With PERCENT the status is 1 when it is less than that in all.  Built in the Debian tree.

set -eu
cd "$(dirname "$0")/.."
project=$PWD
# shellcheck source=scripts/versions
. scripts/versions
out=$project/build/coverage
least=${1-0}
[[ $least =~ ^[0-9]+$ ]] || { echo "coverage: $least: not a percentage" >&2; exit 2; }

mkdir -p "$out/raw" build/log
rm -rf "$out"/raw/*
# With --target, build scripts and procedural macros are built without the flags.
triple=x86_64-unknown-linux-gnu
if ! (cd tools && "$project/scripts/in-debian" env RUSTFLAGS="-Cinstrument-coverage -Ccodegen-units=1" \
	LLVM_PROFILE_FILE="$out/raw/%p-%m.profraw" CARGO_TARGET_DIR="$out/target" \
	cargo test --locked --target $triple --package erofs-shared-format --tests) > build/log/coverage.log 2>&1; then
	tail -n 30 build/log/coverage.log >&2
	echo "coverage: the tests failed; the whole log is in build/log/coverage.log" >&2
	exit 1
fi
objects=()
while read -r program; do
	objects+=(--object "$project/tools/$program")
done < <(sed -nE 's/^ +Running .* \((.*)\)$/\1/p' build/log/coverage.log | sed "s|^$project/tools/||; s|^$project/|../|")
[ ${#objects[@]} -gt 0 ] || { echo "coverage: no test program ran; see build/log/coverage.log" >&2; exit 1; }

# shellcheck disable=SC2016 # for the inner shell
scripts/in-debian sh -c 'out=$1 profdata=$2; shift 2
	"$profdata" merge --sparse "$out"/raw/*.profraw -o "$out/profile"' sh "$out" "llvm-profdata-$LLVM_VERSION"
scripts/in-debian "llvm-cov-$LLVM_VERSION" export --format lcov --instr-profile "$out/profile" "${objects[@]}" > "$out/lcov.info"

python3 - "$out" "$project" "$least" << 'END'
import os
import sys

out, project, least = sys.argv[1], sys.argv[2], float(sys.argv[3])
files, lines = {}, {}
with open(f"{out}/lcov.info") as info:
    for entry in info:
        # A file has more than one name here: what is generic is compiled with the test, the rest with the crate.
        if entry.startswith("SF:"):
            name = os.path.relpath(os.path.normpath(entry[3:].strip()), project)
            lines = files.setdefault(name, {}) if name.startswith("src/format/") else {}
        elif entry.startswith("DA:"):
            number, count = entry[3:].split(",")[:2]
            lines[int(number)] = max(lines.get(int(number), 0), int(count))


def row(name, hit, lines):
    return f"| {name} | {hit} of {lines} | {100 * hit / max(1, lines):.1f}% |"


total = run = 0
print("| file | lines run | |", "|---|---|---|", sep="\n")
with open(f"{out}/not-run", "w") as missing:
    for name, lines in sorted(files.items()):
        hit = sum(1 for count in lines.values() if count)
        print(row(f"`{name.removeprefix('src/format/')}`", hit, len(lines)))
        total, run = total + len(lines), run + hit
        with open(f"{project}/{name}") as source:
            text = source.read().splitlines()
        for number, count in sorted(lines.items()):
            if not count:
                print(f"{name}:{number}: {text[number - 1].strip()}", file=missing)
if not total:
    sys.exit("coverage: no line of src/format is in the programs")
print(row("all of `src/format`", run, total))
if 100 * run / total < least:
    sys.exit(f"coverage: less than {least:g}%")
END
