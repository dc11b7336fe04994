use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// A directory of the test's own, removed with everything below it in the end.
struct Dir(PathBuf, OwnedFd);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("offshoot-sys-path-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let fd = open(&path, libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        Self(path, fd)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.1.as_fd())
    }

    fn file(&self, name: &str, text: &[u8]) -> OwnedFd {
        let file = openat(self.fd(), name, libc::O_CREAT | libc::O_RDWR, 0o600).unwrap();
        write_all(&file, text).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn errors_name_directory_path_and_flags() {
    let dir = Dir::new("errors");
    let number = dir.1.as_raw_fd();
    let error = openat2(dir.fd(), "etc/x", libc::O_PATH | libc::O_NOFOLLOW, 0, libc::RESOLVE_BENEATH).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("openat2([{number}]\"etc/x\", O_PATH|O_NOFOLLOW): no such file or directory")
    );
    let error = open("/no/such", libc::O_RDWR | libc::O_CREAT, 0o600).unwrap_err();
    assert_eq!(error.to_string(), "openat(\"/no/such\", O_RDWR|O_CREAT): no such file or directory");
    assert_eq!(open("a\0b", 0, 0).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(flag_names(0), "O_RDONLY");
    assert_eq!(flag_names(libc::O_TMPFILE | libc::O_RDWR), "O_RDWR|O_TMPFILE");
    assert_eq!(openat2(dir.fd(), "x", libc::O_PATH, 0o777, 0).unwrap_err().errno(), Errno::EINVAL);
}

#[test]
fn everything_is_close_on_exec() {
    let dir = Dir::new("cloexec");
    dir.file("f", b"");
    let opened = [
        open(dir.0.join("f"), libc::O_RDONLY, 0).unwrap(),
        openat2(dir.fd(), "f", libc::O_RDONLY, 0, libc::RESOLVE_IN_ROOT).unwrap(),
        reopen(openat(dir.fd(), "f", libc::O_PATH, 0).unwrap(), libc::O_RDONLY).unwrap(),
    ];
    for fd in &opened {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
}

#[test]
fn nodes_of_every_kind() {
    let dir = Dir::new("nodes");
    mkdirat(dir.fd(), "dir", 0o700).unwrap();
    mkfifoat(dir.fd(), "fifo", 0o600).unwrap();
    mknodat(dir.fd(), "file", libc::S_IFREG | 0o600, 0).unwrap();
    symlinkat("file", dir.fd(), "link").unwrap();
    linkat(dir.fd(), "file", dir.fd(), "hard", 0).unwrap();
    let kind = |name: &str| fstatat(dir.fd(), name, libc::AT_SYMLINK_NOFOLLOW).unwrap().st_mode & libc::S_IFMT;
    assert_eq!(["dir", "fifo", "file", "link"].map(kind), [libc::S_IFDIR, libc::S_IFIFO, libc::S_IFREG, libc::S_IFLNK]);
    assert_eq!(fstatat(dir.fd(), "hard", 0).unwrap().st_nlink, 2);
    assert_eq!(readlinkat(dir.fd(), "link").unwrap(), Path::new("file"));
    let link = openat(dir.fd(), "link", libc::O_PATH | libc::O_NOFOLLOW, 0).unwrap();
    assert_eq!(readlinkat(Some(link.as_fd()), "").unwrap(), Path::new("file"));
    let mut names = read_dir(&dir.1).unwrap();
    names.sort();
    assert_eq!(names, ["dir", "fifo", "file", "hard", "link"]);
    assert_eq!(unlinkat(dir.fd(), "dir", 0).unwrap_err().errno(), Errno::EISDIR);
    unlinkat(dir.fd(), "dir", libc::AT_REMOVEDIR).unwrap();
    unlinkat(dir.fd(), "hard", 0).unwrap();
    renameat2(dir.fd(), "file", dir.fd(), "fifo", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(["file", "fifo"].map(kind), [libc::S_IFIFO, libc::S_IFREG]);
    let error = renameat2(dir.fd(), "file", dir.fd(), "fifo", libc::RENAME_NOREPLACE).unwrap_err();
    assert_eq!(error.errno(), Errno::EEXIST);
}

#[test]
fn owner_and_mode_of_a_path_descriptor() {
    let dir = Dir::new("mode");
    dir.file("f", b"");
    let file = openat(dir.fd(), "f", libc::O_PATH, 0).unwrap();
    let before = fstat(&file).unwrap();
    fchown(&file, before.st_uid, before.st_gid).unwrap();
    fchmod(&file, 0o4711).unwrap();
    assert_eq!(std::fs::metadata(dir.0.join("f")).unwrap().permissions().mode() & 0o7777, 0o4711);
    fchmod(reopen(&file, libc::O_RDONLY).unwrap(), 0o600).unwrap();
    let after = std::fs::metadata(dir.0.join("f")).unwrap();
    assert_eq!((after.permissions().mode() & 0o7777, after.ino()), (0o600, before.st_ino));
}

#[test]
fn reading_has_a_cap() {
    let dir = Dir::new("cap");
    dir.file("f", &[7; 10_000]);
    let open = || openat(dir.fd(), "f", libc::O_RDONLY, 0).unwrap();
    assert_eq!(read_to_end(open(), 10_000).unwrap(), [7; 10_000]);
    assert_eq!(read_to_end(open(), 9_999).unwrap_err().errno(), Errno::EFBIG);
    let file = dir.file("f", b"");
    ftruncate(&file, 3).unwrap();
    assert_eq!(read_to_end(open(), 3).unwrap().len(), 3);
    assert_eq!(read(&dir.1, &mut [0]).unwrap_err().errno(), Errno::EISDIR);
}

#[test]
fn copying_takes_the_rest() {
    let dir = Dir::new("copy");
    dir.file("from", &[7; 10_000]);
    let from = openat(dir.fd(), "from", libc::O_RDONLY, 0).unwrap();
    read(&from, &mut [0; 100]).unwrap();
    let to = dir.file("to", b"x");
    assert_eq!(copy(&from, &to).unwrap(), 9_900);
    assert_eq!(fstat(&to).unwrap().st_size, 9_901);
    let closed = openat(dir.fd(), "to", libc::O_RDONLY, 0).unwrap();
    assert_eq!(copy(&from, closed).unwrap_err().errno(), Errno::EBADF);
}

#[test]
fn attributes() {
    let dir = Dir::new("xattr");
    let file = dir.file("f", b"");
    assert_eq!(getxattr(&file, "user.offshoot").unwrap_or(None), None);
    match setxattr(&file, "user.offshoot", b"value", 0) {
        Err(error) if error.errno() == Errno::EOPNOTSUPP => println!("skipped: {error}"),
        result => {
            result.unwrap();
            assert_eq!(getxattr(&file, "user.offshoot").unwrap().unwrap(), b"value");
            let error = setxattr(&file, "user.offshoot", b"", libc::XATTR_CREATE).unwrap_err();
            assert_eq!(error.errno(), Errno::EEXIST);
        }
    }
}

#[test]
fn locks_exclude_each_other() {
    let dir = Dir::new("lock");
    let (one, two) = (dir.file("f", b""), dir.file("f", b""));
    flock(&one, libc::LOCK_EX).unwrap();
    assert_eq!(flock(&two, libc::LOCK_EX | libc::LOCK_NB).unwrap_err().errno(), Errno::EWOULDBLOCK);
    drop(one);
    flock(&two, libc::LOCK_EX | libc::LOCK_NB).unwrap();
}
