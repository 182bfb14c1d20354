#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: programs from the images, and whole applications from one image after the other has run the
# same. Prints lines "CONTENDER IMAGE ROW VALUE..." for scripts/bench. How often.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
times=$1
tree=/usr/lib/python3.13

twenty_programs > /tmp/commands
echo "/usr/bin/python3 -B /tmp/all.py" > /tmp/python
cat > /tmp/all.py <<-'END'
	import importlib, json, re, sys, warnings
	warnings.simplefilter("ignore")
	loaded = 0
	for name in sorted(sys.stdlib_module_names):
	    if name not in ("antigravity", "this", "idlelib", "turtledemo"):
	        try:
	            importlib.import_module(name)
	            loaded += 1
	        except (ImportError, OSError, AttributeError):
	            pass
	assert loaded > 200, loaded
	words = re.findall(r"\w+", open(json.__file__).read())
	assert json.loads(json.dumps(words)) == words
END
cat > /tmp/git <<-END
	/usr/bin/git -c safe.directory=* --git-dir=/tmp/git --work-tree=$tree init -q
	/usr/bin/git -c safe.directory=* -c core.compression=0 --git-dir=/tmp/git --work-tree=$tree add -A
	/usr/bin/git -c safe.directory=* --git-dir=/tmp/git --work-tree=$tree status --short
END
cat > /tmp/git-status <<-END
	/usr/bin/git -c safe.directory=* --git-dir=/tmp/git --work-tree=$tree status --short
	/usr/bin/git -c safe.directory=* --git-dir=/tmp/git --work-tree=$tree diff --no-ext-diff --stat
END
cat > /tmp/nginx.conf <<-'END'
	daemon off;
	master_process off;
	user root;
	pid /tmp/pid;
	events { worker_connections 64; }
	http {
		access_log off;
		sendfile on;
		keepalive_requests 100000;
		types { }
		client_body_temp_path /tmp/1;
		proxy_temp_path /tmp/2;
		fastcgi_temp_path /tmp/3;
		uwsgi_temp_path /tmp/4;
		scgi_temp_path /tmp/5;
		server { listen 127.0.0.1:8080; root /; }
	}
END

# As a container has them
prepare() {
	mount_both
	for image in 1 2; do
		mount_inside $image
		cp /tmp/all.py /tmp/nginx.conf /mnt/$image/tmp
	done
	settle
	: > /tmp/none
	"$programs/runner" / 1 < /tmp/none > /dev/null
	"$programs/client" 0 0 < /dev/null > /dev/null 2>&1 || true
}
finish() {
	for image in 1 2; do
		umount /mnt/$image/tmp /mnt/$image/dev /mnt/$image/proc
	done
	unmount_both
}

run() { "$programs/runner" "$@"; }

serve() {
	local name=$1 pid
	chroot /mnt/1 /usr/sbin/nginx -e /tmp/error -c /tmp/nginx.conf &
	pid=$!
	"$programs/client" 8080 2000 < /tmp/paths | sed "s/^/$name 1 nginx_first /"
	for ((i = 0; i < times; i++)); do
		"$programs/client" 8080 2000 < /tmp/paths | sed "s/^/$name 1 nginx /"
	done
	kill $pid
	wait $pid || true
}

contender() {
	local name=$1 image
	# programs
	prepare
	for image in 1 2; do
		echo "$name $image exec_first $(run /mnt/$image 1 < /tmp/commands)"
		run /mnt/$image "$times" < /tmp/commands | sed "s/^/$name $image exec /"
	done
	for image in 1 2; do
		echo "$name $image python_first $(run /mnt/$image 1 < /tmp/python)"
	done
	run /mnt/2 "$times" < /tmp/python | sed "s/^/$name 2 python /"
	# git walks what the first image has read
	(cd /mnt/1 && find .$tree -type f) | "$reader" /mnt/1 131072 1 > /dev/null
	for ((i = 0; i < times; i++)); do
		rm -rf /mnt/2/tmp/git
		echo "$name 2 git$([ $i = 0 ] && echo _first) $(run /mnt/2 1 < /tmp/git)"
	done
	run /mnt/2 "$times" < /tmp/git-status | sed "s/^/$name 2 git_status /"
	# the first image has no git, the second no web server: here the second is warm
	sed 's/^/./' /tmp/paths | "$reader" /mnt/2 131072 1 > /dev/null
	serve "$name"
	finish
	mount_both
	# memory mappings, nothing cached
	settle
	for image in 1 2; do
		"$reader" /mnt/$image stat 1 < /tmp/names/$image > /dev/null
		"$reader" /mnt/$image touch 1 < /tmp/names/$image | sed "s/^/$name $image touch_first /"
	done
	unmount_both
}

list_names
# what both systems have, every Nth of it
LC_ALL=C comm -12 /tmp/names/1 /tmp/names/2 | grep -E '^\./usr/share/[A-Za-z0-9/._+-]+$' | sed 's/^\.//' > /tmp/common
awk -v step=$(($(wc -l < /tmp/common) / 200)) 'NR % step == 0 && n++ < 200' /tmp/common > /tmp/paths
for name in ${2-in-tree inode_share off compare content fingerprint again}; do
	with "$name" contender
done
