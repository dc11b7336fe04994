/* hits PROGRAM ADDRESSES COMMAND...: runs COMMAND and all that comes of it with a breakpoint at each address in the file ADDRESSES
 * (one a line, hexadecimal), wherever PROGRAM runs, and prints those that were reached, in the order in which they were for the
 * first time, each with who came by: 1 COMMAND itself, 2 another process, 3 both.
 *
 * For hack/order. PROGRAM lies at the addresses it was linked for; other programs run as ever. To step through the
 * instructions instead takes two switches of processes for each of millions: minutes, and many on a busy machine. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define INT3 0xcc

static struct point {
	unsigned long at;
	int who, turn;
} *points;
static size_t count;
/* The program's code from the first address to the last, without and with the breakpoints. */
static unsigned char *plain, *armed;
static size_t size;

static void fail(const char *what)
{
	perror(what);
	exit(125);
}

static int by_address(const void *a, const void *b)
{
	unsigned long x = ((const struct point *)a)->at, y = ((const struct point *)b)->at;
	return (x > y) - (x < y);
}

static int by_turn(const void *a, const void *b)
{
	return ((const struct point *)a)->turn - ((const struct point *)b)->turn;
}

static void load(const char *name)
{
	FILE *file = fopen(name, "r");
	if (!file)
		fail(name);
	for (unsigned long at; fscanf(file, "%lx", &at) == 1; count++) {
		points = realloc(points, (count + 1) * sizeof *points);
		points[count] = (struct point){ at, 0, 0 };
	}
	fclose(file);
	if (!count)
		exit(2);
	qsort(points, count, sizeof *points, by_address);
	size = points[count - 1].at + 1 - points[0].at;
}

/* Sets the breakpoints in a process, if it runs PROGRAM. */
static void arm(pid_t pid, const char *program)
{
	char path[64], exe[4096];
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	ssize_t length = readlink(path, exe, sizeof exe - 1);
	exe[length < 0 ? 0 : length] = 0;
	/* By its last name: a command that enters a container executes itself again by another path. */
	char *base = strrchr(exe, '/');
	if (!base || strcmp(base, strrchr(program, '/')))
		return;
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int mem = open(path, O_RDWR | O_CLOEXEC);
	if (mem < 0)
		fail(path);
	if (!plain) {
		plain = malloc(size), armed = malloc(size);
		if (pread(mem, plain, size, points[0].at) != (ssize_t)size)
			fail("read the program's code");
		memcpy(armed, plain, size);
		for (size_t i = 0; i < count; i++)
			armed[points[i].at - points[0].at] = INT3;
	}
	if (pwrite(mem, armed, size, points[0].at) != (ssize_t)size)
		fail("write the program's code");
	close(mem);
}

/* Takes away the breakpoint that a process has come to, and says whether there was one. */
static int reached(pid_t pid, int who)
{
	static int turn;
	size_t rip = offsetof(struct user_regs_struct, rip);
	struct point key = { (unsigned long)ptrace(PTRACE_PEEKUSER, pid, rip, 0) - 1, 0, 0 };
	struct point *point = bsearch(&key, points, count, sizeof *points, by_address);
	if (!point)
		return 0;
	point->who |= who;
	if (!point->turn)
		point->turn = ++turn;
	long word = ptrace(PTRACE_PEEKTEXT, pid, point->at, 0);
	word = (word & ~0xffL) | plain[point->at - points[0].at];
	ptrace(PTRACE_POKETEXT, pid, point->at, word);
	ptrace(PTRACE_POKEUSER, pid, rip, point->at);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc < 4 || argv[1][0] != '/')
		return 2;
	load(argv[2]);
	pid_t child = fork();
	if (child == 0) {
		/* The command's own words are not ours. */
		dup2(open("/dev/null", O_WRONLY), 1);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	int status, code = 125;
	waitpid(child, &status, 0);
	arm(child, argv[1]);
	ptrace(PTRACE_SETOPTIONS, child, 0,
	       PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	ptrace(PTRACE_CONT, child, 0, 0);
	for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
		if (!WIFSTOPPED(status)) {
			if (pid != child)
				continue;
			code = WIFEXITED(status) ? WEXITSTATUS(status) : 125;
			break;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		/* A new process starts with a SIGSTOP, and without the breakpoints that its parent has come to. */
		if (event == PTRACE_EVENT_EXEC || (!event && signal == SIGSTOP))
			arm(pid, argv[1]);
		if (event || signal == SIGSTOP || (signal == SIGTRAP && reached(pid, pid == child ? 1 : 2)))
			signal = 0;
		ptrace(PTRACE_CONT, pid, 0, signal);
	}
	qsort(points, count, sizeof *points, by_turn);
	for (size_t i = 0; i < count; i++)
		if (points[i].turn)
			printf("%lx %d\n", points[i].at, points[i].who);
	return code;
}
