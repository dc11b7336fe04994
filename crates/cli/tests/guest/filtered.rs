//! The filter of system calls that machines have: what it refuses by whichever way, and what it leaves alone.

use crate::place::{self, Place};
use crate::{perl, system};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

const EPERM: &str = "1";
const EAFNOSUPPORT: &str = "97";

/// The filter that `machine launch` writes with these options, of a machine that is never started.
fn filter(place: &Place, options: &[&str]) -> Value {
    let (store, image) = (place.dir.join("store"), place.dir.join("image"));
    fs::create_dir_all(image.join("sbin")).unwrap();
    fs::write(image.join("sbin/init"), "").unwrap();
    fs::set_permissions(image.join("sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    let ok = |words: &[&str]| {
        let mut command = Command::new(place::program());
        command.arg("--root").arg(place.dir.join("machines")).args(words).env("OFFSHOOT_STORE", &store);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ok(&["image", "import", "--quiet", "--name", "none", image.to_str().unwrap()]);
    ok(&[&["machine", "launch", "--no-start", "none", "filtered"], options].concat());
    let config = fs::read(store.join("machines/filtered/config.json")).unwrap();
    ok(&["machine", "rm", "filtered"]);
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["linux"]["seccomp"].clone()
}

#[test]
fn a_machine_s_calls_are_refused_that_no_system_needs_and_no_others() {
    let Some(place) = system("guest-filtered") else { return };
    let filter = filter(&place, &[]);
    let attempts = [
        // AF_VSOCK, AF_ALG, AF_CAN, AF_RXRPC, AF_KEY, AF_BLUETOOTH; the kernel drops the upper half of a number.
        ("socket(40)", "call('socket', 40, 1, 0)", EAFNOSUPPORT),
        ("socket(2^32 + 40)", "call('socket', 0x100000028, 1, 0)", EAFNOSUPPORT),
        ("socket(38)", "call('socket', 38, 5, 0)", EAFNOSUPPORT),
        ("socket(29)", "call('socket', 29, 3, 1)", EAFNOSUPPORT),
        ("socket(33)", "call('socket', 33, 2, 2)", EAFNOSUPPORT),
        ("socket(15)", "call('socket', 15, 3, 2)", EAFNOSUPPORT),
        ("socket(31)", "call('socket', 31, 3, 1)", EAFNOSUPPORT),
        ("socketpair(30)", "syscall(53, 30, 1, 0, my $two = qq(\\0) x 8) < 0 ? $! + 0 : 0", EAFNOSUPPORT),
        ("io_uring_setup", "syscall(425, 8, my $parameters = qq(\\0) x 120) < 0 ? $! + 0 : 0", EPERM),
        ("userfaultfd", "syscall(323, 1) < 0 ? $! + 0 : 0", EPERM),
        // What the kernel has said until now: to be read by every user where kernel.dmesg_restrict is 0.
        ("syslog", "call('syslog', 3, my $text = qq(\\0) x 64, 64)", EPERM),
        ("bpf", "call('bpf', 0, pack('L4 x112', 1, 4, 4, 1), 128)", EPERM),
        ("perf_event_open", "call('perf_event_open', pack('L2 Q x112', 1, 120, 0), 0, -1, -1, 0)", EPERM),
        ("init_module", "call('init_module', 0, 0, '')", EPERM),
        ("open_by_handle_at", "call('open_by_handle_at', 0, pack('L2 L2', 8, 1, 2, 0), 0)", EPERM),
        ("socket(1)", "call('socket', 1, 1, 0)", "0"),
        ("socket(2)", "call('socket', 2, 1, 0)", "0"),
        ("socket(10)", "call('socket', 10, 1, 0)", "0"),
        ("socket(16)", "call('socket', 16, 3, 0)", "0"),
        ("socket(17)", "call('socket', 17, 3, 0)", "0"),
        ("socketpair(1)", "syscall(53, 1, 1, 0, my $two = qq(\\0) x 8) < 0 ? $! + 0 : 0", "0"),
        ("mount", "mkdir '/own'; call('mount', 'tmpfs', '/own', 'tmpfs', 0, 0)", "0"),
        ("a user namespace", "within(sub { call('unshare', 0x10000000) })", "0"),
        ("keyctl", "call('keyctl', 0, -3, 1)", "0"),
        ("a filter of its own", "within(sub { syscall(157, 38, 1, 0, 0, 0) < 0 ? $! + 0 : 0 })", "0"),
        ("fanotify", "call('fanotify_init', 0x200, 0)", "0"),
    ];
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the numbers of calls are those of x86-64");
        return;
    }
    let lines: Vec<String> =
        attempts.iter().map(|(name, what, _)| format!("print qq({name}: ), do {{ {what} }}, qq(\\n);")).collect();
    let printed = perl(&place, |config| config["linux"]["seccomp"] = filter, &lines.join("\n"));
    let expected: Vec<String> = attempts.iter().map(|(name, _, answer)| format!("{name}: {answer}")).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    place.assert_nothing_left();
}

/// Where a 32-bit program is put, what of its file comes before its code, and how long that is.
const BASE: u32 = 0x0804_8000;
const HEADERS: u32 = 52 + 32;
const CODE: u32 = 33;
/// Where it has its data.
const DATA: u32 = BASE + HEADERS + CODE;

/// A 32-bit x86 program that makes one system call and exits with its error's number, or, where there is none, with what is
/// left of 256 after the result. man 5 elf
fn program_of_32_bits(number: u32, arguments: [u32; 3], data: [u32; 3]) -> Vec<u8> {
    let words = |all: &[u32]| all.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let size = HEADERS + CODE + 12;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0];
    file.extend(words(&[1, BASE + HEADERS, 52, 0, 0]));
    file.extend([52_u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(words(&[1, 0, BASE, BASE, size, size, 5, 0x1000]));
    // mov to eax, ebx, ecx and edx
    for (register, value) in [(0xb8, number), (0xbb, arguments[0]), (0xb9, arguments[1]), (0xba, arguments[2])] {
        file.push(register);
        file.extend(value.to_le_bytes());
    }
    // int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    file.extend([0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    file.extend(words(&data));
    assert_eq!(file.len(), size as usize);
    file
}

/// `socketcall` makes sockets of any kind, and its arguments are where no filter looks.
#[test]
fn a_program_of_32_bits_makes_no_socket_past_the_filter() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: only x86 has such programs");
        return;
    }
    let Some(place) = system("guest-32") else { return };
    const SOCKETCALL: u32 = 102;
    const SOCKET: u32 = 359;
    let programs = [
        ("call-unix", program_of_32_bits(SOCKETCALL, [1, DATA, 0], [1, 1, 0])),
        ("call-vsock", program_of_32_bits(SOCKETCALL, [1, DATA, 0], [40, 1, 0])),
        ("unix", program_of_32_bits(SOCKET, [1, 1, 0], [0; 3])),
        ("vsock", program_of_32_bits(SOCKET, [40, 1, 0], [0; 3])),
        ("module", program_of_32_bits(128, [0, 0, 0], [0; 3])),
    ];
    for (name, program) in &programs {
        let file = place.dir.join("rootfs").join(name);
        fs::write(&file, program).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = "for name in call-unix call-vsock unix vsock module; do echo $name $(/$name; echo $?); done";
    let unfiltered = place.prints(|_| {}, script);
    if !unfiltered.contains("call-unix 253") {
        println!("skipped: this kernel runs no programs of 32 bits: {unfiltered}");
        return;
    }
    let full = filter(&place, &[]);
    let printed = place.prints(|config| config["linux"]["seccomp"] = full, script);
    assert_eq!(printed, "call-unix 97\ncall-vsock 97\nunix 253\nvsock 97\nmodule 1");
    // Where they are wanted, they are let.
    let compat = filter(&place, &["--seccomp", "compat"]);
    let printed = place.prints(|config| config["linux"]["seccomp"] = compat, script);
    assert!(printed.starts_with("call-unix 253\n") && printed.ends_with("module 1"), "{printed}");
    place.assert_nothing_left();
}
