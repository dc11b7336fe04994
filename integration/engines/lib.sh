# Shared by the scripts beside it: each starts one engine of Debian's with offshoot as its runtime, apart from the host's own, and takes it down.
set -u
OFFSHOOT=$(readlink -f "${OFFSHOOT:?the binary to test}")
passed=0 failed=0
work=$(mktemp -d)
# ok NAME EXPECTED COMMAND…: the command's output, both streams, must contain the expected text
ok() {
	local name=$1 expected=$2 output
	shift 2
	output=$("$@" 2>&1 </dev/null)
	if [[ $output == *"$expected"* ]]; then
		passed=$((passed + 1))
		echo "ok   $name"
	else
		failed=$((failed + 1))
		printf 'FAIL %s\n     wanted: %s\n     got:    %s\n' "$name" "$expected" "$output"
	fi
}
# status COMMAND…: its exit status as text
status() { "$@" >/dev/null 2>&1; echo "status=$?"; }
# The whole script cannot run here; counted as a test that passed and was skipped, as Rust's harness counts them.
skip() { echo "skipped: $*"; echo "1 passed, 0 failed"; exit 0; }
# The same for a part of a script.
skip_one() { echo "skipped: $*"; passed=$((passed + 1)); }
# whole_system: prints the name of a tar file of a Debian with systemd
whole_system() {
	local tar=${XDG_CACHE_HOME:-/var/cache}/offshoot/systems-systemd-trixie-$(dpkg --print-architecture).tar
	[ -e "$tar" ] || "$(dirname "$(readlink -f "$0")")/../systems" fetch systemd-trixie >&2
	[ -e "$tar" ] && echo "$tar"
}
# A root filesystem of busybox, and a tar file of it
image() {
	mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
	cp /bin/busybox "$work/root/bin/"
	chroot "$work/root" /bin/busybox --install -s /bin
	tar -C "$work/root" -c . >"$work/image.tar"
}
finish() {
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ] && [ "$passed" != 0 ]
}
# wait_for COMMAND…: until it succeeds, a minute at most
wait_for() {
	local i
	for i in $(seq ${PATIENCE:-600}); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
	echo "gave up waiting for: $*"
	return 1
}
