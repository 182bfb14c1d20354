#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Formatting, lints and tests of the sources that are built for the host; the last line is "N passed, N failed".
# CARGO is the cargo to use, by default that of the Debian tree.  What is behind the name goes to "cargo test":
# scripts/host-tests.sh --test xattr

set -u
cd "$(dirname "$0")/.." || exit
project=$PWD

if [ -n "${CARGO-}" ]; then
	read -ra cargo <<< "$CARGO"
else
	cargo=("$project/scripts/in-debian" cargo)
fi
target=$project/build/cargo-target
log=$project/build/log/host-tests.log
mkdir -p "$target" "${log%/*}"
cd tools || exit

passed=0 failed=0

# lint TITLE COMMAND...: one test
lint() {
	local title=$1
	shift
	if "$@"; then
		echo "ok: $title"
		passed=$((passed + 1))
	else
		echo "FAILED: $title"
		failed=$((failed + 1))
	fi
}

lint "cargo fmt --check" "${cargo[@]}" fmt --all --check
lint "cargo clippy" "${cargo[@]}" clippy --quiet --locked --workspace --all-targets --target-dir "$target" -- -D warnings

"${cargo[@]}" test --locked --workspace --no-fail-fast --target-dir "$target" "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# Every test program ends with "test result: ok. 3 passed; 0 failed; ...".
read -r p f < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; .*/\1 \2/p' "$log" |
	awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
passed=$((passed + p))
failed=$((failed + f))
# Sources that do not compile have no count, nor does a program that ends early.
[ "$status" = 0 ] || [ "$f" != 0 ] || failed=$((failed + 1))

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
