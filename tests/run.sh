#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the kselftests in a guest.
#
#   tests/run.sh [NAME...]     all tests, or those named: compare, read, … (tests/ksft_NAME.sh), stress_share (tests/stress_share.sh)
#
#   FSTYPE=erofs tests/run.sh  puts the kernel's own erofs to the test in place of erofs-shared: a test of the tests
#
#   VM_KERNEL=NAME tests/run.sh  takes another kernel of scripts/kernels (make KERNEL=NAME)
#   VM_KERNEL=debug tests/run.sh  takes the debug kernel (scripts/debug-kernel) and the module for it, and has the tests that need
#                              them, tests/debug_NAME.sh, too
#
#   VERIFY=digest tests/run.sh  has shared data verified by digests (verify=), where a test does not say how
#
# STRESS=SECONDS is how long each tests/stress_NAME.sh takes (60); if none is named, all are run after the others.
#
# GUESTS=N is how many guests run side by side, with some of the tests each: two where there are two processors and the
# memory for both; the output of all but the first comes at the end.  GUESTS=1 shows everything as it happens.
#
# LEAKS=off turns kmemleak off in the debug kernel, which takes two fifths of the time where much is allocated: for long runs.
#
# Prints the TAP of every test and ends with "N passed, N failed".

set -u
cd "$(dirname "$0")/.." || exit 1
FSTYPE=${FSTYPE:-erofs-shared}
# shellcheck source=scripts/architecture
. scripts/architecture
# Tests that need the name "erofs" free, or containerd: they have a guest of their own, with another root, that runs after the
# guest with the others.
NAMED=" containerd pods "
# Tests in which QEMU counts instructions: these have a guest of their own, too, with one processor.
COUNTED=" atomic "
# Tests of what several processors do at once. Where guests have one each, these have a guest of their own after the others.
SEVERAL=" again blocks_stress merge modload share_change share_life share_race share_stress sysfs verify_change "

die() { echo "tests/run.sh: $*" >&2; echo "0 passed, 1 failed"; exit 1; }
[ "${VM_KERNEL:-}" != amd64 ] || unset VM_KERNEL
architecture=amd64
[ "${VM_KERNEL:-debug}" = debug ] || architecture=$(scripts/kernels --get "$VM_KERNEL" architecture) || die "VM_KERNEL=$VM_KERNEL"
set_architecture "$architecture"
# Programs that run here are in the first, those of the guest and the images in the second.
HERE=build/tests
B=$HERE${cross:+-$architecture}
CC=gcc-$(. scripts/versions; echo "$GCC_VERSION")

if [ $# = 0 ]; then
	for name in tests/ksft_*.sh; do
		name=${name#tests/ksft_}
		name=${name%.sh}
		# Its figures are for a kernel of amd64 without checks.
		[[ ${VM_KERNEL:-} != debug && -z $cross ]] || [ "$name" != atomic ] || continue
		# There is no guest with containerd for another architecture.
		[[ -z $cross || $NAMED != *" $name "* ]] || continue
		set -- "$@" "$name"
	done
	if [ "${VM_KERNEL:-}" = debug ]; then
		for name in tests/debug_*.sh; do
			name=${name#tests/}
			set -- "$@" "${name%.sh}"
		done
	fi
fi
tests=() stress=()
for name; do
	case $name in
	debug_*)
		[ -e "tests/$name.sh" ] || die "no test $name; there are: $(cd tests && echo debug_*.sh | sed 's/\.sh//g')"
		[ "${VM_KERNEL:-}" = debug ] || die "$name needs the debug kernel (VM_KERNEL=debug)"
		tests+=("$name")
		;;
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
limit=3300 test_limit=1500 memory=3G kernel=stock smp=2 structures=3000
if [ "${VM_KERNEL:-}" = debug ]; then
	# With more processors than the machine has, one may be taken away from a thread anywhere.
	limit=6000 test_limit=2400 memory=4G kernel=debug smp=$(($(nproc) + 1)) structures=1000
elif [ -n "${VM_KERNEL:-}" ]; then
	kernel=$VM_KERNEL
fi
# Another architecture is emulated, with or without KVM.
[ -z "$cross" ] || limit=14000 test_limit=3000
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

# compile DIRECTORY COMPILER SOURCE...: into it, what is older there than its source
compile() {
	local bin=$1/bin list=$1/compile compiler=$2 source program header
	shift 2
	mkdir -p "$bin"
	for source; do
		program=$bin/$(basename "$source" .c)
		if [ ! "$program" -nt "$source" ]; then
			echo "$program $source"
			continue
		fi
		for header in tests/*.h; do
			if grep -q "\"${header##*/}\"" "$source" && [ ! "$program" -nt "$header" ]; then
				echo "$program $source"
			fi
		done
	done > "$list"
	[ -s "$list" ] || return 0
	# one visit to the Debian tree for all
	# shellcheck disable=SC2016
	scripts/in-debian bash -ec 'while read -r program source; do
			'"$compiler"' -std=gnu17 -Wall -Wextra -Werror -O2 -static -pthread -isystem build/linux/tools/testing/selftests -o "$program" "$source"
		done < "$1"' bash "$list"
}
programs=(tests/*.c)
# tests/atomic.c marks what QEMU counts with an instruction of amd64.
[ -z "$cross" ] || mapfile -t programs < <(printf '%s\n' tests/*.c | grep -v '/atomic\.c$')
compile "$B" "$cross$CC" "${programs[@]}" || die "a test program does not compile"
[ -z "$cross" ] || compile $HERE "$CC" tests/walk.c || die "tests/walk.c does not compile"
cp build/linux/tools/testing/selftests/kselftest/ktap_helpers.sh "$B/bin/" || die "no kernel source in build/linux: run make setup"

# --- images --------------------------------------------------------------------------------------------------------------

guest=build/guest/root.erofs
[ -z "$cross" ] || guest=build/kernels/guest-$architecture/root.erofs
# what they are made by
mapfile -t makers < <(grep -o 'tests/[a-z_]*\.py' tests/images.sh | sort -u)
key=$(cat tests/images.sh "${makers[@]}" tests/walk.c scripts/versions | sha256sum)
if [ "$(cat $B/images.key 2> /dev/null)" != "$key" ]; then
	echo "# making the images"
	rm -rf $B/images.key $B/trees
	HERE=$HERE tests/images.sh "$B" "$guest" "$libraries" || die "the images could not be made"
	rm -f $B/disk.ext4
	truncate -s $(($(du -sm --apparent-size $B/images | cut -f1) * 5 / 4 + 64))M $B/disk.ext4
	scripts/in-debian mke2fs -q -F -t ext4 -m 0 -O ^has_journal -d $B/images $B/disk.ext4 || die "mke2fs failed"
	echo "$key" > $B/images.key
fi

if [[ " ${tests[*]} " = *" hostile_structure "* ]]; then
	tests/structure_images.sh "${COUNT:-$structures}" "${SEED:-20261124}" || die "the images for hostile_structure could not be made"
fi

if [[ " ${tests[*]} " = *" atomic "* ]]; then
	tests/atomic_images.sh || die "the images for atomic could not be made"
	scripts/in-debian "$CC" -std=gnu17 -Wall -Wextra -Wno-unused-parameter -Werror -O2 -shared -fPIC -o $B/atomic.so \
		tests/bench/plugin/atomic.c || die "the plugin for atomic does not compile"
fi

if [[ " ${tests[*]} " = *" tool "* ]]; then
	# as scripts/host-tests.sh builds it
	(
		[ -z "$rust" ] || export "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cross$CC" TARGET_CC="$cross$CC" TARGET_AR="${cross}ar"
		cd tools && ../scripts/in-debian cargo build --quiet --locked -p erofs-shared ${rust:+--target "$rust"} --target-dir ../build/cargo-target
	) || die "the tool does not compile"
fi

if [[ " ${tests[*]} " =~ " "(containerd|pods)" " ]]; then
	[ -z "$cross" ] || die "containerd and pods are for amd64: the guest for $architecture is without containerd"
	[ -e build/containers/root.ext4 ] || die "no build/containers: run make setup"
	key=$(cat tests/oci.py scripts/manifest.py build/debian/versions | sha256sum)
	if [ "$(cat $B/containers.key 2> /dev/null)" != "$key" ]; then
		echo "# making the containers' images"
		rm -f $B/containers.key
		scripts/in-debian python3 tests/oci.py / $B/containers || die "the containers' images could not be made"
		echo "$key" > $B/containers.key
	fi
fi

# --- the guests ----------------------------------------------------------------------------------------------------------

# seconds NAME: about how long it takes
seconds() {
	case $kernel-$1 in
	*-stress_*) echo $((STRESS + 60)); return ;;
	debug-vfs) echo 600; return ;;
	debug-containerd) echo 900; return ;;
	debug-share_change | debug-share_life) echo 300; return ;;
	debug-hostile_structure) echo $((150 + ${COUNT:-$structures} * 2)); return ;;
	debug-hostile) echo $((${COUNT:-250} * 4)); return ;;
	debug-*) echo 100; return ;;
	esac
	case $1 in
	pods) echo 300 ;;
	compare) echo 230 ;;
	containerd | hostile_structure | share | share_ways | store | verify_change) echo 165 ;;
	again | twins | verify) echo 130 ;;
	blocks | modload | share_start | tool | truncate) echo 90 ;;
	read | share_life | strategy | sysfs | vfs) echo 70 ;;
	blocks_stress | decoded | fadvise | hostile_packed | share_stress) echo 40 ;;
	*) echo 20 ;;
	esac
}

set -- "${tests[@]}" "${stress[@]}"
if [ -z "${GUESTS:-}" ]; then
	GUESTS=1
	available=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
	[ "$(nproc)" -lt 2 ] || [ "$available" -lt $((2 * ${memory%G} + 2)) ] || GUESTS=2
fi
[ "$GUESTS" -le $# ] || GUESTS=$#
# A processor of a guest that has to wait for one of this machine keeps the guest's others waiting, and they turn in circles: two
# guests with two each, on two processors, take more than twice as long as with one each. The debug kernel is to meet that.
beside=("$@") several=() together=$smp
if [ $kernel != debug ] && ((GUESTS > 1 && $(nproc) < GUESTS * smp)); then
	beside=()
	for name; do
		if [[ $SEVERAL = *" $name "* || $name = stress_* ]]; then several+=("$name"); else beside+=("$name"); fi
	done
	if [ ${#beside[@]} -lt 2 ]; then
		beside=("$@") several=() GUESTS=1
	else
		[ "$GUESTS" -le ${#beside[@]} ] || GUESTS=${#beside[@]}
		smp=1
	fi
fi
# Those that take long first, each to the guest that has least to do.
names=() load=()
for ((n = 0; n < GUESTS; n++)); do names[n]='' load[n]=0; done
while read -r took name; do
	least=0
	for ((n = 1; n < GUESTS; n++)); do [ "${load[n]}" -ge "${load[least]}" ] || least=$n; done
	names[least]+=" $name"
	load[least]=$((load[least] + took))
done < <(for name in "${beside[@]}"; do echo "$(seconds "$name") $name"; done | sort -s -k1,1nr)

out=$B/output-$kernel
options=()
[ "$kernel" = stock ] || options=(--kernel "$kernel")
[ "$FSTYPE" != erofs ] || options+=(--no-module)
[ -z "${COUNT:-}" ] || options+=(--env "COUNT=$COUNT")
[ -z "${LAYOUTS:-}" ] || options+=(--env "LAYOUTS=$LAYOUTS")
[ "${LEAKS:-}" != off ] || options+=(--append kmemleak=off --no-leak-check)
# shellcheck source=tests/module_args.sh
. tests/module_args.sh
options+=(--module-args "verify=${VERIFY:-compare} ${MODULE_ARGS[*]}" --env "VERIFY=${VERIFY:-compare}")
# guest NUMBER: its tests, in the order in which they were named; those that need another guest after the others
guest() {
	local name mine=() named=() counted=() vm='' status=0
	for name in "${all[@]}"; do
		[[ "${names[$1]} " = *" $name "* ]] || continue
		if [[ $NAMED = *" $name "* ]]; then
			named+=("$name")
		elif [[ $COUNTED = *" $name "* ]]; then
			counted+=("$name")
		else
			mine+=("$name")
		fi
	done
	trap 'trap "" TERM; [ -z "$vm" ] || kill $vm; wait; exit 130' TERM
	[ ${#mine[@]} = 0 ] || machine "${mine[@]}" || status=$?
	[ ${#named[@]} = 0 ] || machine --root build/containers/root.ext4 "${named[@]}" || status=$?
	[ ${#counted[@]} = 0 ] || machine --counted "${counted[@]}" || status=$?
	return $status
}
# machine [--root IMAGE | --counted] NAME...; in the background, so that the trap above is not kept waiting
machine() {
	local more=() image
	if [ "$1" = --root ]; then
		more=("${@:1:2}")
		shift 2
	elif [ "$1" = --counted ]; then
		more=(--icount --no-leak-check --qemu "-plugin $PWD/$B/atomic.so,out=$PWD/build/vm/share/atomic")
		for image in first second third zeros many sparse huge; do
			more+=(--disk "$B/atomic/$image")
		done
		shift
	fi
	scripts/vm "${options[@]}" --name "tests-$kernel" --timeout "${TIMEOUT:-$limit}" --mem $memory --smp "${SMP:-$smp}" --disk $B/disk.ext4 "${more[@]}" \
		--env "FSTYPE=$FSTYPE" --env "TEST_TIMEOUT=${TEST_TIMEOUT:-$test_limit}" --env "STRESS=${STRESS:-}" --env "BUILT=$B" \
		--env "TOOL=/project/build/cargo-target${rust:+/$rust}/debug/erofs-shared" \
		-f tests/guest.sh "$@" 2>&1 &
	vm=$!
	wait $vm
}
all=("$@") others=()
rm -f "$out" "$out"-*
# all come to an end with this one
# shellcheck disable=SC2317
stop() {
	trap - INT TERM
	kill -- "${others[@]}" 2> /dev/null
	wait
	rm -f "$out-first"
	exit 130
}
trap stop INT TERM
for ((n = 1; n < GUESTS; n++)); do
	echo "# in another guest:${names[n]}"
	guest $n > "$out-$n" &
	others+=($!)
done
# first: the guest with the first of $names, and what it prints
first() {
	local shown status
	mkfifo "$out-first"
	tee -a "$out" < "$out-first" &
	shown=$!
	# In the background, so that the trap above is not kept waiting; what comes first of the two ends with the other.
	guest 0 > "$out-first" &
	others+=($!)
	wait $!
	status=$?
	wait $shown
	rm -f "$out-first"
	return $status
}
first
status=$?
for ((n = 1; n < GUESTS; n++)); do
	wait "${others[n - 1]}" || status=$?
	tee -a "$out" < "$out-$n"
	rm -f "$out-$n"
done
if [ ${#several[@]} != 0 ]; then
	others=() smp=$together names=(" ${several[*]}")
	first || status=$?
fi
trap - INT TERM

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
	echo "# a guest ended with status $status"
	failed=1
fi
grep -E '^not ok |^# broken: ' "$out"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
