//! What the guest's root asks of the kernel that is the host's alone: each attempt, and the error that it has to end with.

use crate::place::Place;
use crate::{mount, perl, prelude, system};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
const ECONNREFUSED: i32 = 111;
const ESTALE: i32 = 116;

/// What is tried, an expression in Perl whose value is the error, and which errors it may end with: a kernel without the
/// feature refuses, too. Arguments are such that nothing comes of it where it is allowed after all.
type Attempt<'a> = (&'a str, &'a str, &'a [i32]);

/// Runs them in a system container and tells of all that end otherwise.
fn refused(place: &Place, before: &str, attempts: &[Attempt]) {
    let lines: Vec<String> =
        attempts.iter().map(|(name, what, _)| format!("print qq({name}: ), do {{ {what} }}, qq(\\n);")).collect();
    let printed = perl(place, |_| {}, &format!("{before}\n{}", lines.join("\n")));
    let mut wrong = Vec::new();
    for (name, _, errors) in attempts {
        let found = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse::<i32>().ok());
        if !found.is_some_and(|found| errors.contains(&found)) {
            wrong.push(format!("{name}: {found:?}, not one of {errors:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{printed}", wrong.join("\n"));
    place.assert_nothing_left();
}

#[test]
fn the_machine_s_hardware_clock_kernel_and_programs_are_the_host_s() {
    let Some(place) = system("guest-kernel") else { return };
    refused(
        &place,
        "my $zero = qq(\\0) x 256;",
        &[
            ("load a module", "call('init_module', $zero, 256, '')", &[EPERM, ENOSYS]),
            ("unload a module", "call('delete_module', 'offshoot_none', 0)", &[EPERM, ENOSYS]),
            ("load a kernel", "call('kexec_load', 0, 0, 0, 0)", &[EPERM, ENOSYS]),
            ("set the time", "call('settimeofday', pack('q2', time, 0), 0)", &[EPERM]),
            ("set a clock", "call('clock_settime', 0, pack('q2', time, 0))", &[EPERM]),
            // ADJ_TICK of 10000 is what it is.
            ("adjust a clock", "call('clock_adjtime', 0, pack('Lx4 q10 x200', 0x4000, (0) x 9, 10000))", &[EPERM]),
            ("swap", "call('swapon', '/none', 0)", &[EPERM, ENOSYS]),
            ("swap no more", "call('swapoff', '/none')", &[EPERM, ENOSYS]),
            ("account for processes", "call('acct', '/none')", &[EPERM, ENOSYS]),
            ("quiet the console", "call('syslog', 8, 0, 7)", &[EPERM]),
            ("read what the kernel says", "open(my $f, '<', '/proc/kmsg') ? 0 : $! + 0", &[EPERM, EACCES]),
            ("read memory", "open(my $f, '<', '/proc/kcore') ? 0 : $! + 0", &[EPERM, EACCES, ENOENT]),
            ("call for a crash", "open(my $f, '>>', '/proc/sysrq-trigger') ? 0 : $! + 0", &[EACCES, ENOENT]),
            ("hear of all files", "call('fanotify_init', 4, 0)", &[EPERM, ENOSYS]),
            ("have more files open", "call('prlimit64', 0, 7, pack('Q2', 1 << 40, 1 << 40), 0)", &[EPERM]),
            ("set a quota", "call('quotactl', 0x80000100, '/dev/none', 0, 0)", &[EPERM, ENOENT, ENODEV, ENOSYS]),
        ],
    );
}

#[test]
fn programs_and_counters_in_the_kernel_are_refused() {
    let Some(place) = system("guest-bpf") else { return };
    let restricted = |file: &str, least: i32| {
        fs::read_to_string(file).is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|n| n >= least))
    };
    // An instruction that sets r0 to 0, and one that ends. BPF_PROG_TYPE_KPROBE, and a socket filter.
    let before = "my $code = pack('CCsl CCsl', 0xb7, 0, 0, 0, 0x95, 0, 0, 0); my $gpl = qq(GPL\\0);
        sub program { my $type = shift; pack('L2 P P x104', $type, 2, $code, $gpl) }
        sub counter { pack('L2 Q x112', 1, 120, 0) }";
    let mut attempts: Vec<Attempt> = vec![
        ("load a tracing program", "call('bpf', 5, program(2), 128)", &[EPERM, ENOSYS]),
        ("load a device filter", "call('bpf', 5, program(15), 128)", &[EPERM, ENOSYS]),
        ("list programs", "call('bpf', 11, pack('L4 x112', 0, 0, 0, 0), 128)", &[EPERM, ENOSYS]),
        ("open a program by number", "call('bpf', 13, pack('L4 x112', 1, 0, 0, 0), 128)", &[EPERM, ENOSYS]),
        ("list maps", "call('bpf', 12, pack('L4 x112', 0, 0, 0, 0), 128)", &[EPERM, ENOSYS]),
    ];
    if restricted("/proc/sys/kernel/unprivileged_bpf_disabled", 1) {
        attempts.push(("load a socket filter", "call('bpf', 5, program(1), 128)", &[EPERM, ENOSYS]));
    } else {
        println!("skipped: this host lets any user load socket filters (kernel.unprivileged_bpf_disabled)");
    }
    if restricted("/proc/sys/kernel/perf_event_paranoid", 1) {
        attempts.push((
            "count on a processor",
            "call('perf_event_open', counter(), -1, 0, -1, 0)",
            &[EPERM, EACCES, ENOENT, ENOSYS],
        ));
    } else {
        println!("skipped: this host lets any user count events (kernel.perf_event_paranoid)");
    }
    refused(&place, before, &attempts);
}

#[test]
fn processes_of_the_host_are_out_of_reach() {
    let Some(place) = system("guest-ptrace") else { return };
    // A number that is far beyond those in the container.
    let other = Other::above(1000);
    let pid = other.0.id();
    let before = format!("my $pid = {pid}; my $buffer = qq(\\0) x 64; my $io = pack('P Q', $buffer, 8);");
    refused(
        &place,
        &before,
        &[
            ("signal", "call('kill', $pid, 0)", &[ESRCH]),
            ("open", "call('pidfd_open', $pid, 0)", &[ESRCH]),
            ("trace", "call('ptrace', 16, $pid, 0, 0)", &[ESRCH]),
            ("seize", "call('ptrace', 0x4206, $pid, 0, 0)", &[ESRCH]),
            ("read", "call('process_vm_readv', $pid, $io, 1, $io, 1, 0)", &[ESRCH]),
            ("write", "call('process_vm_writev', $pid, $io, 1, $io, 1, 0)", &[ESRCH]),
            ("see", "-e qq(/proc/$pid/stat) ? 0 : $! + 0", &[ENOENT]),
            ("limit", "call('prlimit64', $pid, 7, 0, $buffer)", &[ESRCH]),
            ("slow down", "call('setpriority', 0, $pid, 0)", &[ESRCH]),
            ("move to other processors", "call('sched_setaffinity', $pid, 8, pack('Q', -1))", &[ESRCH]),
        ],
    );
}

/// A process of the host's, until dropped.
struct Other(Child);

impl Other {
    fn above(least: u32) -> Other {
        loop {
            let other = Other(Command::new("sleep").arg("1000").spawn().unwrap());
            if other.0.id() > least {
                return other;
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// By descriptors of files (CAP_DAC_READ_SEARCH, "shocker"), devices and file systems that only the host may mount.
#[test]
fn files_and_disks_of_the_host_are_out_of_reach() {
    let Some(place) = system("guest-disks") else { return };
    let volume = place.dir.join("volume");
    fs::create_dir(&volume).unwrap();
    place.edit(|config| mount(config, "/volume", &volume, &["bind"]));
    let before = r"
        sub handle { my ($place, $inode) = @_;
            call('openat', -100, $place, 0x10000, 0) and return 250;
            call('open_by_handle_at', $result, pack('L2 L2', 8, 1, $inode, 0), 0) }
        sub filesystem { my ($type, $source) = @_;
            $errno = call('fsopen', $type, 0) and return $errno;
            my $context = $result;
            call('fsconfig', $context, 1, 'source', $source, 0) if defined $source;
            call('fsconfig', $context, 6, 0, 0, 0) }
        mkdir '/own'; call('mount', 'tmpfs', '/own', 'tmpfs', 0, 0) and die;";
    let mut attempts: Vec<Attempt> = vec![
        ("open the disk's root by its number", "handle('/', 2)", &[EPERM, ESTALE]),
        ("the same by a volume", "handle('/volume', 2)", &[EPERM, ESTALE, EACCES]),
        ("make a disk", "call('mknod', '/disk', 060600, 0x800)", &[EPERM]),
        ("make memory", "call('mknod', '/memory', 020600, 0x101)", &[EPERM]),
        ("make a disk on a file system of its own", "call('mknod', '/own/disk', 060600, 0x800)", &[EPERM]),
        ("make the kernel's log", "call('mknod', '/own/kmsg', 020600, 0x10b)", &[EPERM]),
        ("mount a device", "call('mount', '/dev/none', '/mnt', 'ext4', 0, 0)", &[EPERM, ENOENT, ENODEV]),
    ];
    const REFUSED: [i32; 3] = [EPERM, ENODEV, EOPNOTSUPP];
    let types = [
        "ext4",
        "xfs",
        "btrfs",
        "vfat",
        "squashfs",
        "erofs",
        "debugfs",
        "tracefs",
        "securityfs",
        "configfs",
        "pstore",
        "efivarfs",
        "hugetlbfs",
        "nfs",
        "cifs",
        "nfsd",
        "selinuxfs",
        "rpc_pipefs",
    ];
    let tries: Vec<String> = types.iter().map(|kind| format!("filesystem('{kind}', '/dev/none')")).collect();
    attempts.extend(types.iter().zip(&tries).map(|(kind, what)| (*kind, what.as_str(), &REFUSED[..])));
    refused(&place, before, &attempts);
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
}

/// Limits, cgroups above its own, and what a hierarchy runs when a cgroup is empty (CVE-2022-0492).
#[test]
fn cgroups_above_its_own_are_out_of_reach() {
    let Some(place) = system("guest-cgroups") else { return };
    place.edit(|config| config["linux"]["resources"]["pids"] = json!({"limit": 100}));
    let before = r"
        sub written { my ($file, $text) = @_; -e $file or return 2;
            open(my $f, '>>', $file) or return $! + 0; (syswrite $f, $text) ? 0 : $! + 0 }
        mkdir '/v1'; mkdir '/v2';
        sub v1 { my ($controller, $file, $text) = @_;
            within(sub { $errno = call('mount', 'none', '/v1', 'cgroup', 0, $controller) and return $errno;
                written(qq(/v1/$file), $text) }) }";
    refused(
        &place,
        before,
        &[
            ("raise its processes", "written('/sys/fs/cgroup/pids.max', 'max')", &[EPERM, EACCES, ENOENT]),
            ("raise its memory", "written('/sys/fs/cgroup/memory.max', 'max')", &[EPERM, EACCES, ENOENT]),
            ("thaw itself", "written('/sys/fs/cgroup/cgroup.freeze', '0')", &[EPERM, EACCES, ENOENT]),
            ("above", "written('/sys/fs/cgroup/../cgroup.procs', $$)", &[ENOENT]),
            ("kill all", "written('/sys/fs/cgroup/../cgroup.kill', 'x')", &[ENOENT]),
            ("v1 processes", "v1('pids', 'pids.max', 'max')", &[EPERM, EACCES, EINVAL, ENOENT, ENODEV, 16]),
            ("v1 memory", "v1('memory', 'memory.limit_in_bytes', '-1')", &[EPERM, EACCES, EINVAL, ENOENT, ENODEV, 16]),
            ("v1 devices", "v1('devices', 'devices.allow', 'a')", &[EPERM, EACCES, EINVAL, ENOENT, ENODEV, 16]),
            ("v1 agent", "v1('memory', 'release_agent', '/x')", &[EPERM, EACCES, EINVAL, ENOENT, ENODEV, 16]),
            ("v1 agent by option", "v1('name=systemd,release_agent=/x', 'tasks', $$)", &[EPERM, EINVAL, ENODEV, 16]),
            ("v1 hierarchy of its own", "v1('none,name=guest', 'tasks', $$)", &[EPERM, EINVAL, ENODEV]),
        ],
    );
}

/// Sockets of kinds that have no namespaces, or that belong to the host's.
#[test]
fn the_host_s_sockets_are_out_of_reach() {
    let Some(place) = system("guest-sockets") else { return };
    let before = r"
        sub netlink { my ($protocol, $type, $body) = @_;
            $errno = call('socket', 16, 3, $protocol) and return $errno;
            my $socket = $result;
            my $message = pack('L S S L L', 16 + length $body, $type, 5, 1, 0) . $body;
            $errno = call('sendto', $socket, $message, length $message, 0, pack('S x2 L L', 16, 0, 0), 12) and return $errno;
            my $answer = qq(\0) x 4096;
            $errno = call('recvfrom', $socket, $answer, 4096, 0x40, 0, 0) and return $errno;
            my ($kind, $code) = unpack('x4 S x10 l', $args[1]);
            $kind == 2 ? -$code : 0 }
        sub vsock { my $port = shift; $errno = call('socket', 40, 1, 0) and return $errno;
            call('bind', $result, pack('S x2 L L x4', 40, $port, 0xffffffff), 16) }";
    refused(
        &place,
        before,
        &[
            // AUDIT_GET, AUDIT_SET
            ("read the audit's state", "netlink(9, 1000, '')", &[EPERM, ECONNREFUSED, 93]),
            ("turn the audit off", "netlink(9, 1001, pack('L10', 1, (0) x 9))", &[EPERM, ECONNREFUSED, 93]),
            (
                "hear what the audit says",
                "call('socket', 16, 3, 9) || call('bind', $result, pack('S x2 L L', 16, 0, 1), 12)",
                &[EPERM, 93],
            ),
            // A port below 1024: a service that others would take for the host's.
            ("serve a hypervisor", "vsock(1000)", &[EPERM, EACCES, EAFNOSUPPORT, ENODEV, 99]),
            ("open packets of the host", "call('setns', 0, 0x40000000)", &[EINVAL]),
        ],
    );
    // It sees its own network only, and its routes are its own.
    let seen = perl(
        &place,
        |_| {},
        "print join ' ', sort map { m{([^/]+)$} } glob '/sys/class/net/*'; print ' ', scalar grep { /^\\w+\\s+0/ } `cat /proc/net/route`",
    );
    assert_eq!(seen, "lo 0");
    place.assert_nothing_left();
}

/// Every file of `/proc` and of `/sys`, which it makes writable first: what its root can open for writing is its own namespaces'.
#[test]
fn what_it_can_write_of_proc_and_sys_is_its_own() {
    let Some(place) = system("guest-sysctls") else { return };
    let program = r#"
        call('mount', 'none', '/sys', 'none', 0x1020, 0);
        my $count = 0;
        my @left = ('/proc', '/sys');
        while (defined(my $path = shift @left)) {
            # Its own processes.
            next if $path =~ m{^/proc/(\d+|self|thread-self)$};
            lstat $path;
            if (-d _) {
                opendir(my $dir, $path) or next;
                push @left, map { "$path/$_" } grep { !/^\.\.?$/ } readdir $dir;
            } elsif (-f _) {
                $count++;
                sysopen(my $file, $path, 1) and print "$path\n";
            }
        }
        print "of $count\n";
    "#;
    let printed = perl(&place, |_| {}, program);
    let count: usize = printed.lines().last().and_then(|line| line.strip_prefix("of ")?.parse().ok()).unwrap_or(0);
    assert!(count > 1000, "{printed}");
    let own = [
        // user_namespaces(7), network_namespaces(7), ipc_namespaces(7), uts_namespaces(7)
        "/proc/sys/user/",
        "/proc/sys/net/",
        "/proc/sys/fs/mqueue/",
        "/proc/sys/kernel/msg",
        "/proc/sys/kernel/sem",
        "/proc/sys/kernel/shm",
        "/proc/sys/kernel/auto_msgmni",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/domainname",
        // For every user: a trigger for himself.
        "/proc/pressure/",
        // pid_namespaces(7); a limit of its own below that of the host
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/kernel/pid_max",
        "/sys/fs/cgroup/",
        "/sys/devices/virtual/net/lo/",
        "/proc/net/",
    ];
    let others: Vec<_> =
        printed.lines().filter(|line| line.starts_with('/') && !own.iter().any(|own| line.starts_with(own))).collect();
    assert!(others.is_empty(), "{others:#?}");
    place.assert_nothing_left();
}

/// Names of the host do not change with those of the guest.
#[test]
fn its_names_are_its_own() {
    let Some(place) = system("guest-names") else { return };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let program = "call('sethostname', 'guest-of-a-test', 15) == 0 or die; call('setdomainname', 'guest', 5) == 0 or die; print `uname -n`";
    assert_eq!(perl(&place, |_| {}, program), "guest-of-a-test");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    place.assert_nothing_left();
}

/// What is done with keys: add one to a keyring, find it there, read it by its number.
const KEYS: &str = r"
    sub add { my ($keyring, $name) = @_; my ($type, $text) = ('user', 'secret');
        call('add_key', $type, $name, $text, length $text, $keyring) and return -1;
        # For all of its user's processes, whatever keyrings they have.
        my $key = $result; call('keyctl', 5, $key, 0x3f3f0000) and return -1; $key }
    sub try { my $key = shift; my $buffer = qq(\0) x 64; call('keyctl', 11, $key, $buffer, 64, 0) }
";

/// Keys of the host and of another container, by their numbers and in the keyrings of users and sessions.
#[test]
fn keys_of_others_are_out_of_reach() {
    let (Some(one), Some(other)) = (system("guest-keys-a"), system("guest-keys-b")) else { return };
    let name = format!("offshoot-test-{}", std::process::id());
    // On the host, with a session of its own, for as long as it is not told to look at its key and end.
    let session =
        "call('keyctl', 1, 0); $| = 1; my $key = add(-3, $ARGV[0]); print qq($key\n); <STDIN>; print try($key)";
    let mut host = Command::new("perl")
        .args(["-e", &(prelude() + KEYS + session), &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(host.stdout.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    let key: i64 = line.trim().parse().unwrap_or(-1);
    if key <= 0 {
        host.wait().unwrap();
        println!("skipped: the host's root cannot add a key");
        return;
    }
    let program = |rest: &str| format!("{KEYS}\n{rest}");
    // The first one keeps a key of its own while the second looks.
    fs::write(
        one.dir.join("rootfs/program"),
        prelude() + &program(&format!("my $key = add(-3, '{name}'); open my $f, '>', '/key'; print $f $key; close $f; rename '/key', '/done'; sleep 100")),
    )
    .unwrap();
    one.edit(|config| config["process"]["args"] = json!(["perl", "/program"]));
    one.ok(&["run", "--detach"], &[]);
    let done = one.dir.join("rootfs/done");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done.exists() {
        assert!(std::time::Instant::now() < end, "the first guest has not made its key");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let its: i64 = fs::read_to_string(done).unwrap().trim().parse().unwrap();
    assert!(its > 0 && its != key, "{its}");
    let tries = format!(
        "my $own = add(-3, '{name}-own'); print try($own), ' ', try({key}), ' ', try({its}), ' ';
         my $found = 0; for my $ring (-1, -2, -3, -4, -5) {{ call('keyctl', 10, $ring, 'user', '{name}', 0) or $found++ }} print qq($found );
         open my $keys, '<', '/proc/keys'; print scalar grep {{ /{name}(?!-own)/ }} <$keys>;
         call('keyctl', 8, {key}, -4) == 0 and print ' links'; call('keyctl', 21, {key}) == 0 and print ' invalidates';
         call('keyctl', 5, {its}, 0x3f3f3f3f) == 0 and print ' opens'"
    );
    let printed = perl(&other, |_| {}, &program(&tries));
    drop(host.stdin.take());
    let mut still = String::new();
    says.read_to_string(&mut still).unwrap();
    host.wait().unwrap();
    let words: Vec<&str> = printed.split(' ').collect();
    assert!(words.len() == 5 && words[0] == "0", "its own key is readable: {printed}");
    // EACCES; ENOKEY of one that is not there for it.
    assert!(["13", "126"].contains(&words[1]) && ["13", "126"].contains(&words[2]), "{printed}");
    assert_eq!(words[3..], ["0", "0"], "{printed}");
    assert_eq!(still, "0", "the host's key was there all the time");
}

/// CVE-2016-9962, CVE-2019-5736: what the guest's root sees of a process that joins, until that is a program of the guest's.
#[test]
fn a_process_that_joins_is_out_of_reach_until_it_is_the_guest_s() {
    let Some(place) = system("guest-joins") else { return };
    let program_file = place.dir.join("offshoot");
    fs::copy(crate::place::program(), &program_file).unwrap();
    let before = fs::read(&program_file).unwrap();
    let watcher = r#"
        open my $log, '>', '/log'; $log->autoflush(1) if $log->can('autoflush'); select $log; $| = 1;
        open my $ready, '>', '/ready'; close $ready;
        my $seen = 0;
        while (!-e '/end') {
            opendir my $dir, '/proc'; my @pids = grep { /^\d+$/ && $_ != $$ && $_ != 1 } readdir $dir;
            for my $pid (@pids) {
                my $name = sub { open(my $f, '<', "/proc/$pid/comm") or return ''; my $n = <$f> // ''; chomp $n; $n };
                my $first = $name->(); $first eq '' || $first eq 'true' and next;
                $seen++;
                my @hits;
                my $exe = readlink "/proc/$pid/exe";
                push @hits, "exe $exe" if defined $exe;
                sysopen(my $mem, "/proc/$pid/mem", 2) and push @hits, 'mem';
                sysopen(my $write, "/proc/$pid/exe", 1) and push @hits, 'writes exe';
                # From the middle of exec on the kernel lets the guest look; nothing of the host's may be open by then.
                if (opendir(my $fds, "/proc/$pid/fd")) {
                    push @hits, grep { defined && !/^(pipe:|socket:|\/dev\/null$|\/proc\/\d+\/fd$)/ } map { readlink "/proc/$pid/fd/$_" } readdir $fds;
                }
                my $last = $name->();
                # As the guest's program it is the guest's, but for its file.
                @hits = grep { $_ eq 'writes exe' } @hits if $first eq 'exe';
                # What it has become meanwhile is the guest's own.
                @hits && $last eq $first and print "$first: @hits\n";
            }
        }
        print "seen $seen\n";
    "#;
    fs::write(place.dir.join("rootfs/program"), prelude() + watcher).unwrap();
    place.edit(|config| config["process"]["args"] = json!(["perl", "/program"]));
    let offshoot = |words: &[&str]| {
        let mut command = Command::new(&program_file);
        command.arg("--root").arg(place.dir.join("root")).args(words).current_dir(&place.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap()
    };
    assert!(offshoot(&["run", "--detach", &place.id]).success());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !place.dir.join("rootfs/ready").exists() {
        assert!(std::time::Instant::now() < end, "the guest does not look");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for _ in 0..60 {
        assert!(offshoot(&["exec", &place.id, "/bin/true"]).success());
        // Its program is the link to the runtime's.
        offshoot(&["exec", &place.id, "/proc/self/exe", "--version"]);
    }
    fs::write(place.dir.join("rootfs/end"), "").unwrap();
    place.wait_for("stopped");
    let log = fs::read_to_string(place.dir.join("rootfs/log")).unwrap();
    let (hits, seen): (Vec<_>, Vec<_>) = log.lines().partition(|line| !line.starts_with("seen "));
    let seen: u32 = seen[0].strip_prefix("seen ").unwrap().parse().unwrap();
    assert!(seen > 5, "it saw none on its way: {log}");
    assert!(hits.is_empty(), "{hits:#?}");
    assert!(fs::read(&program_file).unwrap() == before, "the runtime's program was changed");
}
