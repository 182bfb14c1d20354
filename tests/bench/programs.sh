#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/programs: two versions of a program, in the images vda and vdb, and in vdc and
# vdd with fingerprints. Prints "WAY whole KIB", page cache with block devices' when all files of both have
# been read, and "WAY run KIB", when both run and a workload has been given to each.

set -eu -o pipefail
mkdir -p /mnt/{1,2,over}
mount -t tmpfs tmpfs /mnt/over

# What a container of each does, in its own namespaces, with /tmp of its own. It ends with "ready".
# shellcheck disable=SC2016 # for the shell there
case $1 in
nginx) workload='nginx
	for i in {1..200}; do
		exec 3<> /dev/tcp/127.0.0.1/80
		printf "GET / HTTP/1.0\r\n\r\n" >&3
		read -r line <&3
		[[ $line = *200* ]]
	done' ;;
redis) workload='redis-server --save "" --port 0 --unixsocket /tmp/s --daemonize yes > /dev/null
	until redis-cli -s /tmp/s ping 2> /dev/null; do sleep 0.1; done
	redis-benchmark -s /tmp/s -n 2000 -q > /dev/null' ;;
postgres) workload='cd /tmp; chown postgres /tmp
	bin=$(echo /usr/lib/postgresql/*/bin)
	as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/$@" > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }; }
	as initdb -N -D /tmp/data
	as pg_ctl -w -D /tmp/data -l /tmp/log -o -k/tmp start
	as pgbench -h /tmp -i -q postgres
	as pgbench -h /tmp -t 200 postgres' ;;
tomcat) workload='export JAVA_HOME=$(echo /usr/lib/jvm/java-*-amd64) CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10
	export CATALINA_TMPDIR=/tmp CATALINA_OUT=/tmp/out
	$CATALINA_HOME/bin/catalina.sh start > /dev/null
	until exec 3<> /dev/tcp/127.0.0.1/8080; do sleep 0.5; done 2> /dev/null
	for i in {1..50}; do
		exec 3<> /dev/tcp/127.0.0.1/8080
		printf "GET / HTTP/1.0\r\n\r\n" >&3
		read -r line <&3
		[[ $line = HTTP/1.1* ]]
	done' ;;
mariadb) workload='mariadb-install-db --user=mysql --datadir=/tmp/data > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
	mariadbd --user=mysql --datadir=/tmp/data --socket=/tmp/s --skip-networking > /tmp/log 2>&1 &
	until mariadb-admin -S /tmp/s ping > /dev/null 2>&1; do sleep 0.5; done
	mariadb-slap -S /tmp/s --auto-generate-sql --number-of-queries=200 > /tmp/out' ;;
tensorflow) workload='export TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH=/srv/app PYTHONDONTWRITEBYTECODE=1
	python3 -c "import tensorflow as tf, time
x = tf.random.normal([100, 100])
print(float(tf.reduce_sum(tf.matmul(x, x))) is not None)
print(\"ready\", flush=True)
time.sleep(1e6)"' ;;
*) echo "no program $1" >&2; exit 1 ;;
esac

cached() { awk '/^(Buffers|Cached):/ { sum += $2 } /^Shmem:/ { sum -= $2 } END { print sum }' /proc/meminfo; }
# shellcheck source=tests/settled.sh
. /project/tests/settled.sh
# begin: nothing of the images is in memory, but the programs of this guest are
begin() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
	sleep 0.5
	find / -maxdepth 1 -print0 | xargs -0 stat > /dev/null
	unshare --mount --net --pid --fork sh -c 'ip link show lo; mount -t proc proc /proc; chroot / true' > /dev/null
	cat /proc/meminfo > /dev/null
	cached=$(cached)
}
mount_both() {
	case $way in
	in-tree) mount -t erofs -o ro /dev/vda /mnt/1 && mount -t erofs -o ro /dev/vdb /mnt/2 ;;
	inode_share)
		mount -t erofs -o ro,inode_share,domain_id=programs /dev/vdc /mnt/1
		mount -t erofs -o ro,inode_share,domain_id=programs /dev/vdd /mnt/2
		;;
	ours) mount -t erofs-shared -o ro /dev/vda /mnt/1 && mount -t erofs-shared -o ro /dev/vdb /mnt/2 ;;
	esac
}
# run NUMBER: a container, until it is ready. Its processes end with $!
run() {
	local over=/mnt/over/$1
	mkdir -p "$over"/{upper,work,root}
	mount -t overlay overlay -o "lowerdir=/mnt/$1,upperdir=$over/upper,workdir=$over/work" "$over/root"
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount --net --pid --fork --kill-child bash -ec '
		ip link set lo up
		mount -t proc proc "$1/proc"
		mount --bind /dev "$1/dev"
		mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
		exec chroot "$1" bash -ec "$2
			echo ready
			sleep 1000000"' bash "$over/root" "$workload" > "$over/out" 2>&1 < /dev/null &
	for _ in {1..9000}; do
		! grep -q '^ready$' "$over/out" || return 0
		kill -0 $! 2> /dev/null || break
		sleep 0.1
	done
	cat "$over/out" >&2
	echo "$way: container $1 is not ready" >&2
	exit 1
}

for way in in-tree inode_share ours; do
	mount_both
	begin
	for number in 1 2; do
		find /mnt/$number -xdev -type f -print0 | xargs -0 cat > /dev/null
		settled
	done
	echo "$way whole $(($(cached) - cached))"
	umount /mnt/1 /mnt/2

	mount_both
	begin
	run 1
	one=$!
	run 2
	settled
	echo "$way run $(($(cached) - cached))"
	kill -9 $one $!
	wait $one $! || true
	for number in 1 2; do
		until umount /mnt/over/$number/root; do sleep 0.2; done
		rm -r /mnt/over/$number
	done
	umount /mnt/1 /mnt/2
done
