#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# scripts/fuzz.sh [TARGET|all] [SECONDS]
#
# Fuzz the format core: build the targets of tools/fuzz, and run one, or each after the other, for SECONDS (60).  Targets:
# superblock inode dirents xattrs chunk_map zmap walk.  A finding ends it with status 1 and the path of the input that shows it;
#
#   scripts/fuzz.sh TARGET FILE
#
# runs that input alone.  Everything it makes is in build/fuzz and build/fuzz-corpus, where inputs that found something new
# are kept for the next run; the seeds in tools/fuzz/corpus stay as they are.
#
# Builds in the Debian tree if there is one, else with this system's cargo and C++ compiler.  No nightly compiler is needed:
# RUSTC_BOOTSTRAP=1 lets a stable one take the flags that cargo-fuzz gives.  With an address sanitizer if one links, else
# without.  NO_SANITIZER=1: without, which is faster, and what is fuzzed has no unsafe code.

set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
# shellcheck source=scripts/versions
. scripts/versions

fail() { printf 'fuzz: %s\n' "$@" >&2; exit 2; }

targets=(superblock inode dirents chunk_map zmap xattrs walk)
what=${1-all} seconds=${2-60} input=
if [ "$what" != all ]; then
	[ -f "tools/fuzz/fuzz_targets/$what.rs" ] || fail "there is no target $what; there are: ${targets[*]}"
	targets=("$what")
fi
bins=()
for target in "${targets[@]}"; do
	bins+=(--bin "$target")
done
if [ -f "$seconds" ]; then
	[ "$what" != all ] || fail "name the target that $seconds is for"
	input=$(realpath "$seconds")
else
	[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "$seconds: neither a number of seconds nor a file"
fi

# --- the compilers -----------------------------------------------------------------------------------------------------

if [ -x build/debian/usr/bin/cargo ] && [ -x "build/debian/usr/bin/clang++-$LLVM_VERSION" ]; then
	run=(scripts/in-debian)
	cxx=clang++-$LLVM_VERSION
	echo "fuzz: building with cargo and $cxx of the Debian tree"
else
	run=()
	cxx=${CXX-}
	for try in c++ g++ clang++; do
		[ -n "$cxx" ] || ! command -v "$try" > /dev/null || cxx=$try
	done
	[ -n "$cxx" ] || fail "libFuzzer needs a C++ compiler (g++ or clang++), or 'make setup' for the Debian tree, which has one"
	command -v cargo > /dev/null || fail "there is no cargo; 'make setup' makes a Debian tree that has one"
	echo "fuzz: building with cargo and $cxx of this system"
fi

# The flags of cargo-fuzz.
triple=x86_64-unknown-linux-gnu
flags=(--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
	-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Ccodegen-units=1 -Cdebug-assertions
	-Coverflow-checks)

# The address sanitizer's runtime: the one that comes with the Rust compiler, or gcc's, which must then be the first library.
# shellcheck disable=SC2016 # for the inner shell
runtime=$("${run[@]}" sh -c 'if ls "$(rustc --print sysroot)/lib/rustlib/$1/lib"/librustc*_rt.asan.a > /dev/null 2>&1; then echo rust
	elif [ -e "$(cc -print-file-name=libasan.so)" ]; then echo gcc; fi' sh "$triple")
[ -z "${NO_SANITIZER-}" ] || runtime=unwanted
case $runtime in
rust)
	dir=asan built="with address sanitizer"
	flags+=(-Zsanitizer=address)
	;;
gcc)
	dir=asan-gcc built="with address sanitizer (gcc's runtime)"
	flags+=(-Zsanitizer=address -Zexternal-clangrt "-Zpre-link-arg=-Wl,--no-as-needed" -Zpre-link-arg=-lasan)
	;;
unwanted) dir=plain built="without address sanitizer" ;;
*) dir=plain built="WITHOUT address sanitizer: its runtime is not there" ;;
esac

begin=$SECONDS
# With --target, build scripts and procedural macros are built without the flags.
"${run[@]}" env RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" CXX="$cxx" CARGO_TARGET_DIR="$project/build/fuzz/$dir" \
	cargo build --locked --release --quiet --target $triple --manifest-path tools/fuzz/Cargo.toml "${bins[@]}" ||
	fail "the build failed"
echo "fuzz: built $built ($((SECONDS - begin)) s)"
bin=$project/build/fuzz/$dir/$triple/release

# --- the runs ----------------------------------------------------------------------------------------------------------

if [ -n "$input" ]; then
	exec "${run[@]}" "$bin/$what" -timeout=10 "$input"
fi

found=0
for target in "${targets[@]}"; do
	corpus=$project/build/fuzz-corpus/$target
	artifacts=$project/build/fuzz/artifacts/$target
	log=build/fuzz/$target.log
	mkdir -p "$corpus" "$artifacts"
	cp -n tools/fuzz/corpus/"$target"/* "$corpus/"
	printf '  %-12s' "$target"
	if nice -n 15 "${run[@]}" "$bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
		-print_final_stats=1 -artifact_prefix="$artifacts/" "$corpus" > "$log" 2>&1; then
		printf '%9d runs, %d features covered, %d inputs\n' \
			"$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
			"$(grep -o 'ft: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)" "$(find "$corpus" -type f | wc -l)"
	else
		found=$((found + 1))
		printf 'FINDING\n'
		grep -aE "panicked at|ERROR: |SUMMARY: |^thread " -A 2 "$log" | sed 's/^/    /' | head -n 20
		artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
		echo "    input: ${artifact:-none was written}"
		echo "    again: scripts/fuzz.sh $target ${artifact#"$project"/}"
		echo "    log:   $log"
	fi
done
echo "${#targets[@]} targets, $found with a finding"
[ "$found" = 0 ]
