//! Loop devices: a file as a block device (man 4 loop).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use crate::Result;

const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
/// Linux 5.8: binds and configures in one step.
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How often another process may be faster in taking the device that was free.
const ATTEMPTS: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

/// A block device over a file, which ends when its descriptor is closed and nothing has it mounted.
#[derive(Debug)]
pub struct LoopDevice {
    _fd: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Puts a block device over `file`, by direct I/O where the file's file system can, so that nothing is cached twice.
    pub fn attach(file: impl AsFd, read_only: bool) -> Result<LoopDevice> {
        let control = crate::path::open("/dev/loop-control", libc::O_RDWR, 0)?;
        let mut result = Err(Errno::EBUSY);
        for _ in 0..ATTEMPTS {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let free = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as libc::Ioctl) };
            let number = call!(Errno::result(free), "ioctl(\"/dev/loop-control\", LOOP_CTL_GET_FREE)")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let access = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
            let device = crate::path::open(&path, access, 0)?;
            result = configure(&device, &file, read_only);
            match result {
                Ok(()) => return Ok(LoopDevice { _fd: device, path }),
                Err(Errno::EBUSY) => {}
                Err(_) => break,
            }
        }
        let number = file.as_fd().as_raw_fd();
        call!(result.and(Err(Errno::EBUSY)), "ioctl(\"/dev/loop*\", LOOP_CONFIGURE, [{number}])")
    }

    /// The device that is over `file` already, if any: a second one would give its file system two masters.
    pub fn find(file: impl AsFd) -> Result<Option<LoopDevice>> {
        let stat = crate::path::fstat(&file)?;
        for name in crate::path::read_dir(crate::path::open("/sys/block", libc::O_RDONLY | libc::O_DIRECTORY, 0)?)? {
            let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else { continue };
            let path = PathBuf::from("/dev").join(name);
            let Ok(device) = crate::path::open(&path, libc::O_RDONLY, 0) else { continue };
            // SAFETY: `Info` is plain integers, for which zero is valid.
            let mut info: Info = unsafe { std::mem::zeroed() };
            // SAFETY: `info` is the structure of LOOP_GET_STATUS64 and outlives the call.
            let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as libc::Ioctl, &raw mut info) };
            if ret == 0 && info.inode == stat.st_ino && decode(info.device) == stat.st_dev {
                return Ok(Some(LoopDevice { _fd: device, path }));
            }
        }
        Ok(None)
    }

    /// The device's path, to mount it by.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// The driver tells devices in the kernel's old 32-bit form: minor bits 0-7 and 20-31, major bits 8-19 (linux/kdev_t.h).
fn decode(device: u64) -> u64 {
    let minor = (device & 0xff) | (device >> 12 & 0xfff00);
    libc::makedev((device >> 8 & 0xfff) as u32, minor as u32)
}

fn configure(device: &OwnedFd, file: &impl AsFd, read_only: bool) -> nix::Result<()> {
    // SAFETY: `Config` is plain integers, for which zero is valid.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = file.as_fd().as_raw_fd() as u32;
    config.info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if read_only {
        config.info.flags |= LO_FLAGS_READ_ONLY;
    }
    // SAFETY: `config` is the structure of LOOP_CONFIGURE and outlives the call.
    let configure = |config: &Config| unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as libc::Ioctl, config) };
    match Errno::result(configure(&config)) {
        // Some file systems know no direct I/O.
        Err(Errno::EINVAL) => {
            config.info.flags &= !LO_FLAGS_DIRECT_IO;
            Errno::result(configure(&config)).map(drop)
        }
        result => result.map(drop),
    }
}
