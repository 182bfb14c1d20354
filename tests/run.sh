#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the kselftests in a guest.
#
#   tests/run.sh [NAME...]     all tests, or those named: compare, read, … (tests/ksft_NAME.sh), stress_share (tests/stress_share.sh)
#
#   FSTYPE=erofs tests/run.sh  puts the kernel's own erofs to the test in place of erofs-shared: a test of the tests
#
#   VM_KERNEL=debug tests/run.sh  takes the debug kernel (scripts/debug-kernel) and the module for it
#
# STRESS=SECONDS is how long each tests/stress_NAME.sh takes (60); if none is named, all are run after the others.
#
# Prints the TAP of every test and ends with "N passed, N failed".

set -u
cd "$(dirname "$0")/.." || exit 1
B=build/tests
FSTYPE=${FSTYPE:-erofs-shared}
CC=gcc-$(. scripts/versions; echo "$GCC_VERSION")

die() { echo "tests/run.sh: $*" >&2; echo "0 passed, 1 failed"; exit 1; }

if [ $# = 0 ]; then
	for name in tests/ksft_*.sh; do
		name=${name#tests/ksft_}
		set -- "$@" "${name%.sh}"
	done
fi
tests=() stress=()
for name; do
	case $name in
	stress_*)
		[ -e "tests/$name.sh" ] || die "no test $name; there are: $(cd tests && echo stress_*.sh | sed 's/\.sh//g')"
		stress+=("$name")
		;;
	*)
		[ -e "tests/ksft_$name.sh" ] || die "no test $name; there are: $(cd tests && echo ksft_*.sh | sed 's/ksft_//g; s/\.sh//g')"
		tests+=("$name")
		;;
	esac
done
[ "$FSTYPE" = erofs ] || [ -e build/erofs_shared.ko ] || die "no build/erofs_shared.ko: run make"

# Without KVM the debug kernel takes about four times as long.
limit=2700 test_limit=700 memory=3G kernel=stock
if [ "${VM_KERNEL:-}" = debug ]; then
	limit=6000 test_limit=2400 memory=4G kernel=debug
fi
if [ ${#stress[@]} != 0 ]; then
	STRESS=${STRESS:-60}
elif [ -n "${STRESS:-}" ]; then
	for name in tests/stress_*.sh; do
		name=${name#tests/}
		stress+=("${name%.sh}")
	done
fi
limit=$((limit + ${#stress[@]} * (${STRESS:-0} * 2 + 600)))

# --- programs ------------------------------------------------------------------------------------------------------------

mkdir -p $B/bin
for source in tests/*.c; do
	program=$B/bin/$(basename "$source" .c)
	[ "$program" -nt "$source" ] || echo "$program $source"
done > $B/compile
if [ -s $B/compile ]; then
	# one visit to the Debian tree for all
	# shellcheck disable=SC2016
	scripts/in-debian bash -ec 'while read -r program source; do
			'"$CC"' -std=gnu17 -Wall -Wextra -Werror -O2 -static -pthread -o "$program" "$source"
		done < "$1"' bash $B/compile || die "a test program does not compile"
fi
cp build/linux/tools/testing/selftests/kselftest/ktap_helpers.sh $B/bin/ || die "no kernel source in build/linux: run make setup"

# --- images --------------------------------------------------------------------------------------------------------------

key=$(cat tests/images.sh tests/*.py tests/walk.c scripts/versions | sha256sum)
if [ "$(cat $B/images.key 2> /dev/null)" != "$key" ]; then
	echo "# making the images"
	rm -rf $B/images.key $B/trees
	tests/images.sh || die "the images could not be made"
	rm -f $B/disk.ext4
	truncate -s $(($(du -sm --apparent-size $B/images | cut -f1) * 5 / 4 + 64))M $B/disk.ext4
	scripts/in-debian mke2fs -q -F -t ext4 -m 0 -O ^has_journal -d $B/images $B/disk.ext4 || die "mke2fs failed"
	echo "$key" > $B/images.key
fi

# --- the guest -----------------------------------------------------------------------------------------------------------

out=$B/output-$kernel
module=()
[ $kernel = stock ] || module=(--kernel debug)
[ "$FSTYPE" != erofs ] || module+=(--no-module)
[ -z "${COUNT:-}" ] || module+=(--env "COUNT=$COUNT")
set -- "${tests[@]}" "${stress[@]}"
scripts/vm "${module[@]}" --name "tests-$kernel" --timeout "${TIMEOUT:-$limit}" --mem $memory --disk $B/disk.ext4 \
	--env "FSTYPE=$FSTYPE" --env "TEST_TIMEOUT=$test_limit" --env "STRESS=${STRESS:-}" \
	-f tests/guest.sh "$@" 2>&1 | tee "$out"
status=${PIPESTATUS[0]}

passed=$(grep -c '^ok [0-9]' "$out")
failed=$(grep -c '^not ok [0-9]' "$out")
# A test that did not get to its end, that skipped something, or a kernel that complained
broken=$(grep -c '^# broken: ' "$out")
skipped=$(grep -ciE '^ok [0-9].*# SKIP' "$out")
passed=$((passed - skipped))
failed=$((failed + broken + skipped))
for name; do
	grep -q "^# end of $name: " "$out" || { echo "# $name: did not run to its end"; failed=$((failed + 1)); }
done
if [ "$status" != 0 ] && [ $failed = 0 ]; then
	echo "# the guest ended with status $status"
	failed=1
fi
grep -E '^not ok |^# broken: ' "$out"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
