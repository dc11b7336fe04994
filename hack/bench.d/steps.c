/* steps PROGRAM COMMAND...: runs COMMAND and its children one instruction at a time, and prints which blocks of 16 bytes of
 * PROGRAM they came through: on each line the address divided by 16, in hexadecimal, and who came by: 1 COMMAND itself, 2 a
 * child, 3 both.
 *
 * For hack/order. PROGRAM lies at the addresses it was linked for; a program of another name is not looked at. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS (1UL << 24)
static unsigned char seen[BLOCKS];

/* Where the program lies in a process; empty when the process runs another one. */
struct process {
	pid_t pid;
	unsigned long from, to;
} known[256];
static int count;

static void look(struct process *process, const char *name)
{
	char line[4096];
	snprintf(line, sizeof line, "/proc/%d/maps", process->pid);
	FILE *maps = fopen(line, "r");
	process->from = process->to = 0;
	while (maps && fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		char *base = strrchr(line, '/');
		if (!base || strcspn(base + 1, " \n") != strlen(name) || strncmp(base + 1, name, strlen(name)) ||
		    sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		if (!process->to)
			process->from = from;
		process->to = to;
	}
	if (maps)
		fclose(maps);
}

static struct process *find(pid_t pid, const char *name)
{
	for (int i = 0; i < count; i++)
		if (known[i].pid == pid)
			return &known[i];
	if (count == sizeof known / sizeof *known)
		exit(125);
	known[count].pid = pid;
	look(&known[count], name);
	return &known[count++];
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const char *name = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
	pid_t child = fork();
	if (child == 0) {
		/* The command's own words are not ours. */
		dup2(2, 1);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execv(argv[2], argv + 2);
		_exit(127);
	}
	int status;
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0,
	       PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	ptrace(PTRACE_SINGLESTEP, child, 0, 0);
	for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
		if (!WIFSTOPPED(status)) {
			if (pid == child)
				break;
			continue;
		}
		struct process *process = find(pid, name);
		int signal = WSTOPSIG(status), event = status >> 16;
		if (event == PTRACE_EVENT_EXEC)
			look(process, name);
		if (event || signal == SIGTRAP || signal == SIGSTOP) {
			unsigned long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
			if (at >= process->from && at < process->to && at >> 4 < BLOCKS)
				seen[at >> 4] |= pid == child ? 1 : 2;
			signal = 0;
		}
		ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
	}
	for (unsigned long block = 0; block < BLOCKS; block++)
		if (seen[block])
			printf("%lx %d\n", block, seen[block]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
