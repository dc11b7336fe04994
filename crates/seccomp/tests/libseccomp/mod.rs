//! libseccomp as an oracle: a C program around the library, compiled when the test runs, and what runc adds to it.

use offshoot_seccomp::emulator::{self, Data};
use offshoot_seccomp::{Arch, Instruction};
use offshoot_spec::{Arg, Seccomp};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub const ENOSYS: u32 = 0x0005_0000 | 38;
const X32_BIT: u32 = 0x4000_0000;

pub struct Oracle {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What runc loads: libseccomp's program behind a stub that answers ENOSYS for calls newer than the profile.
pub struct Runc {
    pub program: Vec<Instruction>,
    /// The largest number that the profile names, an architecture each.
    largest: Vec<(Arch, u32)>,
}

impl Oracle {
    /// `None`, with a word why, where there is no compiler or no libseccomp.
    pub fn new(test: &str) -> Option<Oracle> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libseccomp/oracle.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{test}"));
        let compiler = Command::new("cc").args(["-O1", "-o"]).args([&program, &source]).arg("-lseccomp").output();
        match compiler {
            Ok(output) if output.status.success() => {}
            _ => {
                println!("skipped: needs cc and libseccomp-dev");
                return None;
            }
        }
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Oracle { input: child.stdin.take(), child, output })
    }

    fn tell(&mut self, text: &str) {
        self.input.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, question: &str) -> String {
        self.tell(question);
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// The call's number; negative where libseccomp knows the name, but not on `arch`; -1 where it does not know it.
    pub fn number(&mut self, arch: Arch, name: &str) -> i32 {
        self.ask(&format!("number {} {name}\n", token(arch))).parse().unwrap()
    }

    pub fn name(&mut self, arch: Arch, number: u32) -> Option<String> {
        Some(self.ask(&format!("name {} {number}\n", token(arch)))).filter(|name| name != "-")
    }

    /// What runc's `libcontainer/seccomp` makes of a valid profile; `None` where libseccomp refuses it.
    pub fn runc(&mut self, profile: &Seccomp, native: Arch) -> Option<Runc> {
        let default = action(&profile.default_action, profile.default_errno_ret);
        let mut commands = format!("new {default} {}\n", token(native));
        let mut arches = vec![native];
        for name in &profile.architectures {
            let arch = Arch::from_name(name).unwrap();
            if !arches.contains(&arch) {
                commands += &format!("arch {}\n", token(arch));
                arches.push(arch);
            }
        }
        if profile.syscalls.iter().map(|rule| rule.names.len()).sum::<usize>() > 32 {
            commands += "optimize\n";
        }
        for rule in &profile.syscalls {
            let action = action(&rule.action, rule.errno_ret);
            let repeated = rule.args.iter().enumerate().any(|(n, a)| rule.args[..n].iter().any(|b| a.index == b.index));
            for name in rule.names.iter().filter(|_| action != default) {
                if self.number(native, name) == -1 {
                    continue;
                }
                let args: Vec<String> = rule.args.iter().map(argument).collect();
                if repeated {
                    commands.extend(args.iter().map(|arg| format!("rule {action} {name} {arg}\n")));
                } else {
                    commands += &format!("rule {action} {name} {}\n", args.join(" "));
                }
            }
        }
        let permissive =
            matches!(profile.default_action.as_str(), "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
        let mut largest = Vec::new();
        for arch in arches.into_iter().filter(|_| !permissive) {
            let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
            if let Some(number @ 1..) = names.map(|name| self.number(arch, name)).max() {
                largest.push((arch, u32::try_from(number).unwrap()));
            }
        }
        let program = self.ask(&(commands + "export\n"));
        (program != "-").then(|| Runc { program: decode(&program, native), largest })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl Runc {
    /// What the kernel would do with the call.
    pub fn result(&self, data: &Data) -> u32 {
        if self.is_newer(data) {
            return ENOSYS;
        }
        emulator::run(&self.program, data).expect("libseccomp's program is valid").0
    }

    /// `generateEnosysStub` of runc's `patchbpf`: whether the call is newer than the profile.
    pub fn is_newer(&self, data: &Data) -> bool {
        let x32 = |number: u32| number & X32_BIT != 0;
        self.largest.iter().filter(|(arch, _)| arch.audit() == data.arch).any(|(arch, largest)| {
            let s390_setup = matches!(arch, Arch::S390 | Arch::S390x) && data.number == 0;
            let mode = arch.audit() != Arch::X86_64.audit() || x32(data.number) == (*arch == Arch::X32);
            s390_setup || (mode && data.number > *largest)
        })
    }
}

const ACTIONS: [u32; 7] = [0x8000_0000, 0x0003_0000, 0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000];

/// What runc's `getAction` makes of it, in the kernel's numbers.
pub fn action(name: &str, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1) & 0xffff;
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        _ => panic!("{name}"),
    }
}

fn argument(arg: &Arg) -> String {
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let operator = OPERATORS.iter().position(|op| arg.op.strip_prefix("SCMP_CMP_") == Some(op)).unwrap() + 1;
    format!("{} {operator} {} {}", arg.index, arg.value, arg.value_two)
}

/// `SCMP_ARCH_…`: the kernel's constant, except where two share one.
fn token(arch: Arch) -> u32 {
    if arch == Arch::X32 { 62 | 0x4000_0000 } else { arch.audit() }
}

fn decode(text: &str, native: Arch) -> Vec<Instruction> {
    let little = native.audit() & 0x4000_0000 != 0;
    let bytes: Vec<u8> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let one = |b: &[u8; 8]| {
        let (code, k) = ([b[0], b[1]], [b[4], b[5], b[6], b[7]]);
        let (code, mut k) = if little {
            (u16::from_le_bytes(code), u32::from_le_bytes(k))
        } else {
            (u16::from_be_bytes(code), u32::from_be_bytes(k))
        };
        // A little-endian libseccomp leaves some of these in its own order.
        if code == 0x06 && k != 0 && !ACTIONS.contains(&(k & 0xffff_0000)) {
            k = k.swap_bytes();
        }
        Instruction { code, jt: b[2], jf: b[3], k }
    };
    bytes.as_chunks::<8>().0.iter().map(one).collect()
}
