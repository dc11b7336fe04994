/* measure COMMAND...: runs it on /dev/null and prints its wall time (ns), user and system time (us), peak memory (KiB) and status.
 *
 * A small program of its own, because the kernel counts the memory of the process that called exec into the peak of the new
 * program (setmax_mm_hiwater_rss in exec_mmap): started from Python, everything would seem to need Python's 12 MiB. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	(void)argc;
	/* What stays running must not keep the pipe of our reader. */
	int out = fcntl(1, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	pid_t child = vfork();
	if (child == 0) {
		execv(argv[1], argv + 1);
		_exit(127);
	}
	struct rusage used;
	int status;
	wait4(child, &status, 0, &used);
	clock_gettime(CLOCK_MONOTONIC, &to);
	dprintf(out, "%ld %ld %ld %ld %d\n", (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec,
		used.ru_utime.tv_sec * 1000000L + used.ru_utime.tv_usec, used.ru_stime.tv_sec * 1000000L + used.ru_stime.tv_usec,
		used.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
