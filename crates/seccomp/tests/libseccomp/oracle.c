/*
 * libseccomp behind lines of text, for the tests to compare with: reads commands, answers each of the last two.
 *
 *   new ACTION ARCH              a filter with this default action, for this architecture alone
 *   arch ARCH                    one more architecture
 *   rule ACTION NAME [INDEX OPERATOR A B]…
 *   optimize                     what runc does with more than 32 calls
 *   number ARCH NAME             "N", negative where the call has no number of its own
 *   name ARCH NUMBER             "NAME", or "-"
 *   export                       the program in hexadecimal, or "-" if a command since `new` failed
 *
 * ACTION is libseccomp's number, ARCH its token, OPERATOR its enumeration; all numbers are decimal.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static scmp_filter_ctx filter;
static int failed;

static uint64_t number(void)
{
	char *word = strtok(NULL, " \n");

	return word ? strtoull(word, NULL, 10) : 0;
}

static void new_filter(void)
{
	uint32_t action = number(), arch = number();

	if (filter)
		seccomp_release(filter);
	filter = seccomp_init(action);
	failed = !filter;
	if (failed || seccomp_arch_native() == arch)
		return;
	failed = seccomp_arch_remove(filter, seccomp_arch_native()) || seccomp_arch_add(filter, arch);
}

static void rule(void)
{
	uint32_t action = number();
	char *name = strtok(NULL, " \n"), *word;
	struct scmp_arg_cmp args[6];
	unsigned int count = 0;

	while (count < 6 && (word = strtok(NULL, " \n"))) {
		args[count].arg = strtoul(word, NULL, 10);
		args[count].op = number();
		args[count].datum_a = number();
		args[count].datum_b = number();
		count++;
	}
	failed = failed || seccomp_rule_add_array(filter, action, seccomp_syscall_resolve_name(name), count, args);
}

static void export(void)
{
	int fd = memfd_create("program", MFD_CLOEXEC), status = failed || seccomp_export_bpf(filter, fd);
	unsigned char byte;

	lseek(fd, 0, SEEK_SET);
	if (status)
		putchar('-');
	else
		while (read(fd, &byte, 1) == 1)
			printf("%02x", byte);
	putchar('\n');
	close(fd);
}

static void resolve_name(void)
{
	uint32_t arch = number();

	printf("%d\n", seccomp_syscall_resolve_name_arch(arch, strtok(NULL, " \n")));
}

static void resolve_number(void)
{
	uint32_t arch = number();
	char *name = seccomp_syscall_resolve_num_arch(arch, (int)number());

	puts(name ? name : "-");
	free(name);
}

int main(void)
{
	char *line = NULL, *command;
	size_t size = 0;

	while (getline(&line, &size, stdin) > 0) {
		command = strtok(line, " \n");
		if (!strcmp(command, "new"))
			new_filter();
		else if (!strcmp(command, "arch"))
			failed = failed || seccomp_arch_add(filter, number());
		else if (!strcmp(command, "rule"))
			rule();
		else if (!strcmp(command, "optimize"))
			failed = failed || seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
		else if (!strcmp(command, "number"))
			resolve_name();
		else if (!strcmp(command, "name"))
			resolve_number();
		else if (!strcmp(command, "export"))
			export();
		else
			return 2;
		fflush(stdout);
	}
	return 0;
}
