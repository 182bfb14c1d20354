# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by what runs containerd in a guest, after tests/settled.sh: its set-up by Documentation/containers.md, start and end.

CONTAINERD_ROOT=/var/lib/containerd
CONTAINERD_RUN=/run/containerd/io.containerd.runtime.v2.task/default
CONTAINERD_LAYERS=$CONTAINERD_ROOT/io.containerd.snapshotter.v1.erofs/snapshots
# What it says
CONTAINERD_LOG=/tmp/containerd.log
CONTAINERD_PID=

# page_file PATH: what the page tells to write there, from the line that names the file on
page_file() {
	sed 's/^       //; t; s/^ *$//; t; s/^.*$/END/' "${PROJECT:-/project}/Documentation/containers.md" |
		sed -n "/^# ${1//\//\\/}\$/,/^END/{/^END/!p}"
}

# operator_file PATH: it is written
operator_file() {
	mkdir -p "$(dirname "$1")"
	page_file "$1" > "$1"
	[ -s "$1" ]
}

# containerd_start: as the package's unit starts it
containerd_start() {
	local unit=/usr/lib/systemd/system/containerd.service start
	eval "$(sed -n 's/^ExecStartPre=-\?//p' $unit)"
	read -ra start < <(sed -n 's/^ExecStart=-\?//p' $unit)
	"${start[@]}" >> $CONTAINERD_LOG 2>&1 < /dev/null &
	CONTAINERD_PID=$!
	disown
	until_true 1000 ctr version
}

# containerd_end [SIGNAL]
containerd_end() {
	kill "-${1:-TERM}" "$CONTAINERD_PID" && until_true 100 eval '! kill -0 "$CONTAINERD_PID" 2> /dev/null'
}
