#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# scripts/sanitize.sh [SECONDS]
#
# The tests of the format core (src/format, tools/format) with the address sanitizer, overflow checks and debug assertions; then each
# fuzz target (scripts/fuzz.sh), for SECONDS in all (120).  The last line is "N passed, N failed".
#
# Rust has no undefined behaviour sanitizer: what C leaves undefined in arithmetic, indexing and shifts ends in a panic here, when it
# is compiled with these checks.  Built in the Debian tree with the stable compiler of the module (RUSTC_BOOTSTRAP=1) and the
# runtime of the address sanitizer that comes with gcc, in build/sanitize.

set -u
cd "$(dirname "$0")/.." || exit
project=$PWD
log=build/log/sanitize.log
mkdir -p build/sanitize build/log

seconds=${1-120}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "sanitize: $seconds: not a number of seconds" >&2; exit 2; }
targets=$(find tools/fuzz/fuzz_targets -name '*.rs' | wc -l)

triple=x86_64-unknown-linux-gnu
flags=(-Zsanitizer=address -Zexternal-clangrt "-Zpre-link-arg=-Wl,--no-as-needed" -Zpre-link-arg=-lasan
	-Cdebug-assertions -Coverflow-checks -Cforce-frame-pointers)

# With --target, build scripts and procedural macros are built without the flags.
cd tools || exit
"$project/scripts/in-debian" env RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR="$project/build/sanitize" \
	ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
	cargo test --locked --no-fail-fast --target $triple --package erofs-shared-format --tests 2>&1 | tee "$project/$log"
status=${PIPESTATUS[0]}
cd "$project" || exit
# Every test program ends with "test result: ok. 3 passed; 0 failed; ...".
read -r passed failed < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; .*/\1 \2/p' "$log" |
	awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
# A program that the sanitizer ends has no count.
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=$((failed + 1))
if ! find build/sanitize/$triple/debug/deps -type f -perm -u+x -name 'dirent-*' -exec grep -qa __asan_report_load {} +; then
	echo "FAILED: the tests are not built with the address sanitizer"
	failed=$((failed + 1))
fi

if scripts/fuzz.sh all $(((seconds + targets - 1) / targets)); then
	passed=$((passed + targets))
else
	failed=$((failed + 1))
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
