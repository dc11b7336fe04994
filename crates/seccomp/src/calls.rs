//! Names and numbers of system calls.

use crate::arch::{ARM_PRIVATE, Arch};
use crate::table::{NO, TABLE};

/// A call known by name on some architecture: its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call(u16);

impl Call {
    pub(crate) fn named(name: &str) -> Option<Call> {
        let row = TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        Some(Call(u16::try_from(row).expect("the table is smaller than 2^16")))
    }

    pub(crate) fn name(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// The number on `arch`, as the kernel reports it, if the call exists there by itself.
    pub(crate) fn number(self, arch: Arch) -> Option<u32> {
        match TABLE[usize::from(self.0)].1[arch.column()] {
            NO => None,
            private @ 0xf000.. => Some(ARM_PRIVATE + u32::from(private & 0xfff)),
            number => Some(arch.base() + u32::from(number)),
        }
    }

    /// The number of the call that stands for this one on `arch`, and the value of its first argument then.
    pub(crate) fn multiplexed(self, arch: Arch) -> Option<(u32, u8)> {
        if !arch.multiplexes() {
            return None;
        }
        let find = |list: &[(&str, u8)]| {
            let at = list.binary_search_by(|(known, _)| (*known).cmp(self.name())).ok()?;
            Some(list[at].1)
        };
        let socketcall = find(&SOCKETCALL).map(|call| (arch.base() + 102, call));
        socketcall.or_else(|| find(&IPC).map(|call| (arch.base() + 117, call)))
    }
}

/// linux/net.h, `SYS_…`.
const SOCKETCALL: [(&str, u8); 20] = [
    ("accept", 5),
    ("accept4", 18),
    ("bind", 2),
    ("connect", 3),
    ("getpeername", 7),
    ("getsockname", 6),
    ("getsockopt", 15),
    ("listen", 4),
    ("recv", 10),
    ("recvfrom", 12),
    ("recvmmsg", 19),
    ("recvmsg", 17),
    ("send", 9),
    ("sendmmsg", 20),
    ("sendmsg", 16),
    ("sendto", 11),
    ("setsockopt", 14),
    ("shutdown", 13),
    ("socket", 1),
    ("socketpair", 8),
];

/// linux/ipc.h.
const IPC: [(&str, u8); 12] = [
    ("msgctl", 14),
    ("msgget", 13),
    ("msgrcv", 12),
    ("msgsnd", 11),
    ("semctl", 3),
    ("semget", 2),
    ("semop", 1),
    ("semtimedop", 4),
    ("shmat", 21),
    ("shmctl", 24),
    ("shmdt", 22),
    ("shmget", 23),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(SOCKETCALL.is_sorted_by(|a, b| a.0 < b.0));
        assert!(IPC.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_are_those_of_the_architecture() {
        let number = |name, arch| Call::named(name).unwrap().number(arch);
        assert_eq!(number("openat", Arch::X86_64), Some(257));
        assert_eq!(number("openat", Arch::Aarch64), Some(56));
        assert_eq!(number("open", Arch::Aarch64), None);
        assert_eq!(number("execveat", Arch::X32), Some(0x4000_0000 + 545));
        assert_eq!(number("set_tls", Arch::Arm), Some(0x000f_0005));
        assert_eq!(number("read", Arch::Mips), Some(4003));
        assert_eq!(number("read", Arch::Mipsel64), Some(5000));
        assert!(Call::named("no_such_call").is_none());
    }

    #[test]
    fn this_machine_agrees() {
        // The C library's headers are a second source for the architecture that runs the test.
        let number = |name: &str| Call::named(name).unwrap().number(Arch::NATIVE).map(i64::from);
        assert_eq!(number("clone3"), Some(libc::SYS_clone3));
        assert_eq!(number("seccomp"), Some(libc::SYS_seccomp));
        assert_eq!(number("socket"), Some(libc::SYS_socket));
        assert_eq!(number("mount_setattr"), Some(libc::SYS_mount_setattr));
    }

    #[test]
    fn only_some_architectures_multiplex() {
        let socket = Call::named("socket").unwrap();
        assert_eq!(socket.multiplexed(Arch::X86), Some((102, 1)));
        assert_eq!(socket.multiplexed(Arch::Mips), Some((4102, 1)));
        assert_eq!(socket.multiplexed(Arch::X86_64), None);
        assert_eq!(Call::named("semop").unwrap().multiplexed(Arch::S390x), Some((117, 1)));
        assert_eq!(Call::named("read").unwrap().multiplexed(Arch::X86), None);
    }
}
