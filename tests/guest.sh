#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest: guest.sh NAME... See tests/run.sh.

set -u
mkdir -p /t/bin /t/images
mount -t ext4 -o ro /dev/vda /t/images || exit 1
cp "/project/$BUILT"/bin/* /t/bin/
modprobe loop max_loop=0
[ "$FSTYPE" != erofs ] || modprobe erofs
bad=0
for name; do
	begin=$SECONDS
	echo "# --- $name"
	# The kernel's log holds so much only: what this test looks for must not be where others have filled it.
	dmesg -C
	echo "test $name begins" > /dev/kmsg
	log=$(mktemp)
	case $name in
	stress_*) limit=$((STRESS * 2 + 600)) script=("/project/tests/$name.sh" "$STRESS") ;;
	debug_*) limit=${TEST_TIMEOUT:-400} script=("/project/tests/$name.sh") ;;
	*) limit=${TEST_TIMEOUT:-400} script=("/project/tests/ksft_$name.sh") ;;
	esac
	timeout -k 10 "$limit" bash "${script[@]}" 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	grep -q '^1\.\.[0-9]' "$log" || echo "# broken: $name: no plan"
	if [ "$status" != 0 ]; then
		bad=1
		grep -q '^not ok ' "$log" || echo "# broken: $name: exit status $status"
	fi
	if [ "$FSTYPE" != erofs ] && grep -q " $FSTYPE " /proc/mounts; then
		echo "# broken: $name: leaves something mounted"
		umount -l -a -t "$FSTYPE"
	fi
	if dmesg | grep -E 'BUG:|WARNING:|Oops|blocked for more than|refcount_t|Call Trace'; then
		echo "# broken: $name: the kernel complains"
	fi
	echo "# end of $name: $((SECONDS - begin)) s"
done
exit $bad
