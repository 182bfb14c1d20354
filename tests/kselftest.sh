#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the tests in the form that the kernel's tree has its own in: installed by tests/Makefile, and run by run_kselftest.sh, which
# reads their TAP, in a guest.
#
#   tests/kselftest.sh [NAME...]    those named (tests/ksft_NAME.sh); all of TEST_PROGS if it is "all" (default: a short one)
#
# Prints what the runner prints, and ends with "N passed, N failed", which counts tests. One that is skipped is neither, and if no other
# passed, that is a failure.

set -u
cd "$(dirname "$0")/.." || exit
D=build/kselftest
die() { echo "tests/kselftest.sh: $*" >&2; echo "0 passed, 1 failed"; exit 1; }
[ -e build/erofs_shared.ko ] || die "no build/erofs_shared.ko: run make"
[ $# != 0 ] || set -- stale

rm -rf $D/erofs-shared
scripts/in-debian make --silent -C tests install runner "OUTPUT=$PWD/$D/programs" "INSTALL_PATH=$PWD/$D/erofs-shared" > /dev/null ||
	die "tests/Makefile installs nothing"
# What the tests source and run lies beside them.
for name in $(grep -ohE '(\$HERE|\$\(dirname "\$0"\))"?/\w+\.(sh|py)|numbered \w+\.py' $D/erofs-shared/*.sh | grep -oE '\w+\.\w+$' | sort -u); do
	[ -e "$D/erofs-shared/$name" ] || die "tests/Makefile does not install $name"
done
options=(-c erofs-shared)
if [ "$*" != all ]; then
	options=()
	for name; do options+=(-t "erofs-shared:ksft_$name.sh"); done
fi
# shellcheck source=tests/module_args.sh
. tests/module_args.sh
# The runner writes beside its tests.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
scripts/vm --name kselftest --timeout 3000 --mem 3G --smp 2 --module-args "${MODULE_ARGS[*]}" \
	"cp -r /project/$D /tmp/kselftest && cd /tmp/kselftest && ./run_kselftest.sh ${options[*]}" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
skipped=$(grep -c '^ok [0-9]* selftests: .*# SKIP' "$log")
passed=$(($(grep -c '^ok [0-9]* selftests: ' "$log") - skipped))
failed=$(grep -c '^not ok [0-9]* selftests: ' "$log")
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
[ "$passed" != 0 ] || [ "$failed" != 0 ] || failed=1
[ "$skipped" = 0 ] || echo "# $skipped skipped: $(sed -n 's/^ok [0-9]* selftests: \(.*\) # SKIP.*/\1/p' "$log" | xargs)"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
