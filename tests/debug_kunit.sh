#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module's KUnit tests (src/share/kunit.rs), which the kernel runs when it loads the module, if it has KUnit: the debug kernel.

. "$(dirname "$0")/lib.sh"
ktap_print_header

ok "the module can be unloaded" rmmod erofs_shared
log_mark
ok "the module can be loaded again" load
log_since | sed -E 's/^\[[^]]*\] //' > "$TMP/log"
# One line for each test of a suite: "    ok 1 name", and before it what was wrong
count=0
while read -r result _ name; do
	count=$((count + 1))
	case $result in
	ok) ktap_test_pass "$name" ;;
	*) ktap_test_fail "${name#[0-9]* }" ;;
	esac
done < <(sed -nE 's/^ +(ok [0-9]+ .*)/\1/p; s/^ +not ok ([0-9]+ .*)/notok \1/p' "$TMP/log")
is "as many tests as the source has were run" "$count" "$(grep -c '#\[test\]' /project/src/share/kunit.rs)"
ok "the suite passed" grep -qxE 'ok [0-9]+ erofs_shared_share' "$TMP/log" || sed 's/^/#   /' "$TMP/log"
finish
