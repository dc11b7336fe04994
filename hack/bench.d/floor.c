/* floor FILTER ROOTFS COMMAND...: the least that Docker's default configuration costs on this kernel.
 *
 * It makes by raw calls what that configuration asks for: five namespaces, a cgroup with limits and device rules, Docker's
 * mounts, devices, masked and read-only paths, capabilities, a seccomp filter (FILTER holds the compiled program). It parses
 * nothing, checks nothing, records nothing, and trusts the root filesystem: it is a measuring stick, not a runtime. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUP2_SUPER_MAGIC 0x63677270
#define DOCKER_CAPABILITIES 0xa80425fbULL

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void put(const char *text, const char *format, ...)
{
	char path[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(path, sizeof path, format, arguments);
	va_end(arguments);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	check(fd, path);
	check(write(fd, text, strlen(text)), path);
	close(fd);
}

/* The v1 hierarchies this host has; none on a v2 host. */
static const char *controllers[] = { "cpuset", "cpu", "cpuacct", "memory", "devices", "pids", "blkio", "freezer" };
#define EACH_V1(path, leaf)                                                              \
	for (unsigned i = 0; i < sizeof controllers / sizeof *controllers; i++)              \
		if (snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s", controllers[i], leaf), 1)

static char name[64];

static void cgroup_v1(void)
{
	char path[256], text[64];
	EACH_V1(path, name)
		if (mkdir(path, 0755) < 0 && errno != ENOENT)
			check(-1, path);
	for (int i = 0; i < 2; i++) {
		const char *file = i ? "cpuset.mems" : "cpuset.cpus";
		snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s", file);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		check(fd, path);
		long size = read(fd, text, sizeof text - 1);
		close(fd);
		text[size > 0 ? size : 0] = 0;
		put(text, "/sys/fs/cgroup/cpuset%s/%s", name, file);
	}
	put("536870912", "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", name);
	put("1024", "/sys/fs/cgroup/cpu%s/cpu.shares", name);
	put("100000", "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", name);
	put("150000", "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", name);
	put("100", "/sys/fs/cgroup/pids%s/pids.max", name);
	put("a", "/sys/fs/cgroup/devices%s/devices.deny", name);
	static const char *allowed[] = { "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
					 "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm" };
	for (unsigned i = 0; i < sizeof allowed / sizeof *allowed; i++)
		put(allowed[i], "/sys/fs/cgroup/devices%s/devices.allow", name);
}

/* The device program is left out: it is bpf(2) twice, some 30 us. */
static int cgroup_v2(void)
{
	char path[256];
	snprintf(path, sizeof path, "/sys/fs/cgroup%s", name);
	check(mkdir(path, 0755), path);
	put("536870912", "%s/memory.max", path);
	put("150000 100000", "%s/cpu.max", path);
	put("39", "%s/cpu.weight", path);
	put("100", "%s/pids.max", path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(fd, path);
	return fd;
}

static void filesystem(const char *rootfs, int v2)
{
	static const char *bound[] = { "resolv.conf", "hostname", "hosts" };
	static const struct { const char *path; mode_t mode; unsigned major, minor; } devices[] = {
		{ "dev/null", 0666, 1, 3 }, { "dev/zero", 0666, 1, 5 }, { "dev/full", 0666, 1, 7 },
		{ "dev/random", 0666, 1, 8 }, { "dev/urandom", 0666, 1, 9 }, { "dev/tty", 0666, 5, 0 },
	};
	static const char *links[][2] = { { "/proc/self/fd", "dev/fd" }, { "/proc/self/fd/0", "dev/stdin" },
					  { "/proc/self/fd/1", "dev/stdout" }, { "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" } };
	static const char *masked[] = { "proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats",
					"proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats", "sys/devices/virtual/powercap",
					"sys/firmware" };
	static const char *readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
	const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	char path[256], from[512];
	struct stat found;

	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	check(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), "bind root");
	check(chdir(rootfs), rootfs);
	check(mount("proc", "proc", "proc", safe, NULL), "proc");
	check(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
	mkdir("dev/pts", 0755);
	mkdir("dev/mqueue", 0755);
	mkdir("dev/shm", 01777);
	check(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "pts");
	check(mount("sysfs", "sys", "sysfs", safe | MS_RDONLY, NULL), "sys");
	if (v2) {
		check(mount("cgroup", "sys/fs/cgroup", "cgroup2", safe | MS_RDONLY, NULL), "cgroup2");
	} else {
		check(mount("tmpfs", "sys/fs/cgroup", "tmpfs", safe, "mode=755"), "cgroup");
		for (unsigned i = 0; i < sizeof controllers / sizeof *controllers; i++) {
			snprintf(path, sizeof path, "sys/fs/cgroup/%s", controllers[i]);
			snprintf(from, sizeof from, "/%s%s", path, name);
			check(mkdir(path, 0755), path);
			check(mount(from, path, NULL, MS_BIND, NULL), from);
			check(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | safe, NULL), path);
		}
		check(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_RDONLY | safe, "mode=755"), "cgroup ro");
	}
	check(mount("mqueue", "dev/mqueue", "mqueue", safe, NULL), "mqueue");
	check(mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=67108864"), "shm");
	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "etc/%s", bound[i]);
		snprintf(from, sizeof from, "../%s", bound[i]);
		close(open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0644));
		check(mount(from, path, NULL, MS_BIND | MS_REC, NULL), path);
	}
	for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
		check(mknod(devices[i].path, S_IFCHR | devices[i].mode, makedev(devices[i].major, devices[i].minor)), devices[i].path);
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
		check(symlink(links[i][0], links[i][1]), links[i][1]);

	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount");
	check(chdir("/"), "chdir");
	for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
			check(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | safe, NULL), readonly[i]);
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++)
		/* Looked at first: a bind that fails waits for an RCU grace period. */
		if (stat(masked[i], &found) == 0) {
			if (S_ISDIR(found.st_mode))
				check(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL), masked[i]);
			else
				check(mount("dev/null", masked[i], NULL, MS_BIND, NULL), masked[i]);
		}
}

static void identity(const char *filter)
{
	static struct sock_filter program[4096];
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	unsigned low = (unsigned)DOCKER_CAPABILITIES;
	struct __user_cap_data_struct sets[2] = { { low, low, 0 }, { 0, 0, 0 } };
	struct rlimit files = { 1024, 1024 };

	check(sethostname("floor", 5), "sethostname");
	check(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
	for (int capability = 0; capability < 41; capability++)
		if (!(DOCKER_CAPABILITIES >> capability & 1))
			check(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "capbset");
	int fd = open(filter, O_RDONLY | O_CLOEXEC);
	check(fd, filter);
	long size = read(fd, program, sizeof program);
	check(size, filter);
	close(fd);
	struct sock_fprog load = { (unsigned short)(size / (long)sizeof *program), program };
	check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &load), "seccomp");
	check(syscall(SYS_capset, &header, sets), "capset");
}

int main(int argc, char **argv)
{
	struct statfs root;
	char path[256], filter[32];
	if (argc < 4)
		return 125;
	check(statfs("/sys/fs/cgroup", &root), "/sys/fs/cgroup");
	int v2 = root.f_type == CGROUP2_SUPER_MAGIC;
	snprintf(name, sizeof name, "/offshoot-floor-%d", getpid());
	/* The filter's file is out of sight after pivot_root. */
	int fd = open(argv[1], O_RDONLY);
	check(fd, argv[1]);
	snprintf(filter, sizeof filter, "/proc/self/fd/%d", fd);

	struct clone_args clone = { .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET, .exit_signal = SIGCHLD };
	if (v2) {
		clone.cgroup = (unsigned long long)cgroup_v2();
		clone.flags |= CLONE_INTO_CGROUP | CLONE_NEWCGROUP;
	} else {
		cgroup_v1();
	}
	long child = syscall(SYS_clone3, &clone, sizeof clone);
	check(child, "clone3");
	if (child == 0) {
		if (!v2)
			EACH_V1(path, name)
				/* tasks, not cgroup.procs: a lone thread that moves itself waits for no grace period. */
				put("0", "%s/tasks", path);
		filesystem(argv[2], v2);
		identity(filter);
		close(fd);
		static char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
		execve(argv[3], argv + 3, environment);
		check(-1, argv[3]);
	}
	int status;
	check(waitpid((pid_t)child, &status, 0), "waitpid");
	if (v2) {
		snprintf(path, sizeof path, "/sys/fs/cgroup%s", name);
		rmdir(path);
	} else {
		EACH_V1(path, name)
			rmdir(path);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
