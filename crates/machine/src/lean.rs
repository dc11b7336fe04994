//! The lean profile: what a systemd in a farm of test machines does without. It is told from outside, by directories that the
//! guest finds mounted read-only in `/run`; the image stays as it is. `docs/machines.md` says what is left out.

use crate::error::{Error, Result};
use crate::home::{self, Home};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The directories, and where the guest finds them. Units come before all others there, generators before all but those that a
/// guest makes for itself (man 5 systemd.unit, man 7 systemd.generator).
const DIRECTORIES: &[(&str, &str)] = &[
    ("units", "/run/systemd/system.control"),
    ("generators", "/run/systemd/system-generators"),
    ("journald", "/run/systemd/journald.conf.d"),
    ("manager", "/run/systemd/system.conf.d"),
];

/// What leads to nothing, in the directory `units`: units of systemd 252 to 262. There is no hardware to watch, nobody to log
/// in, nothing to be tidied on a schedule, and no update whose caches would have to be made anew in each clone.
const UNITS: &[&str] = &[
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-varlink.socket",
    "systemd-udev-load-credentials.service",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-logind.service",
    "systemd-logind-varlink.socket",
    "getty.target",
    "getty-static.service",
    "console-getty.service",
    "serial-getty@.service",
    "timers.target",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "e2scrub_reap.service",
    "dev-hugepages.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    // The root file system is mounted as it is to be, and /dev is made from outside.
    "systemd-remount-fs.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup-dev-early.service",
    // What they make is in an image whose packages are installed.
    "systemd-sysusers.service",
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    // Not the unit, only that it is wanted at boot: its socket starts it when somebody calls.
    "multi-user.target.wants/dbus.service",
];

/// What leads to nothing in the directory `generators`: those of systemd 252 to 262. Each is a process at each boot, and together
/// they take two fifths of its time. Those that make units of an image's files [`GENERATOR`] calls where there are such files;
/// the others are for hardware, disks, a kernel's command line, logins, and hosts.
const GENERATORS: &[&str] = &[
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-factory-reset-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
];

/// Files, with their permissions: a guest for which the host's root is nobody has to read them, too.
const FILES: &[(&str, u32, &str)] = &[
    ("generators/offshoot-generator", 0o755, include_str!("lean/generator.sh")),
    ("journald/offshoot.conf", 0o644, "[Journal]\nStorage=volatile\nRuntimeMaxUse=1M\nRuntimeMaxFileSize=512K\n"),
    // Every line on the console is the supervisor's to copy; and a memory controller for each unit takes some 5 KiB for each of
    // the host's processors.
    (
        "manager/offshoot.conf",
        0o644,
        "[Manager]\nShowStatus=error\nDefaultMemoryAccounting=no\nDefaultIOAccounting=no\n",
    ),
];

impl Home {
    fn lean(&self) -> PathBuf {
        self.path.join("lean")
    }

    /// What a lean machine finds mounted: source and destination.
    pub(crate) fn lean_mounts(&self) -> impl Iterator<Item = (PathBuf, &'static str)> {
        DIRECTORIES.iter().map(|(name, destination)| (self.lean().join(name), *destination))
    }

    /// Makes what lean machines find mounted, or what is not there of it.
    ///
    /// # Errors
    /// A file cannot be made.
    pub(crate) fn make_lean(&self) -> Result<()> {
        let units = UNITS.iter().map(|name| self.lean().join("units").join(name));
        let generators = GENERATORS.iter().map(|name| self.lean().join("generators").join(name));
        units.chain(generators).try_for_each(|link| lead_to_nothing(&link))?;
        for (name, mode, text) in FILES {
            let file = self.lean().join(name);
            make_directory(&file)?;
            home::write_text(&file, text.as_bytes(), false)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(*mode))
                .map_err(|error| Error::io(format_args!("open {} for machines", file.display()), &error))?;
        }
        Ok(())
    }
}

fn lead_to_nothing(link: &Path) -> Result<()> {
    make_directory(link)?;
    match symlink("/dev/null", link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io(format_args!("make {}", link.display()), &error))
        }
        _ => Ok(()),
    }
}

fn make_directory(of: &Path) -> Result<()> {
    let dir = of.parent().unwrap_or(of);
    fs::create_dir_all(dir).map_err(|error| Error::io(format_args!("make {}", dir.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::process::Command;

    #[test]
    fn every_directory_that_is_mounted_is_made_and_what_is_left_out_leads_to_nothing() {
        let scratch = Scratch::new("lean");
        let home = Home::new(scratch.path());
        home.make_lean().unwrap();
        home.make_lean().unwrap();
        for (source, _) in home.lean_mounts() {
            assert!(source.is_dir(), "{}", source.display());
        }
        for link in
            ["units/getty.target", "units/multi-user.target.wants/dbus.service", "generators/systemd-run-generator"]
        {
            assert_eq!(fs::read_link(home.lean().join(link)).unwrap(), Path::new("/dev/null"));
        }
        let generator = fs::metadata(home.lean().join("generators/offshoot-generator")).unwrap();
        assert_eq!(generator.permissions().mode() & 0o777, 0o755);
    }

    /// The script, with `image` in place of the root, and generators in `from` that leave their names.
    fn generate(image: &Path, from: &str) -> Vec<String> {
        let generators = image.join(from).join("systemd/system-generators");
        fs::create_dir_all(&generators).unwrap();
        for name in ["systemd-fstab-generator", "systemd-rc-local-generator", "systemd-sysv-generator"] {
            write(&generators.join(name), 0o755, "#!/bin/sh\n: >\"$1/${0##*/}\" && [ $# = 3 ]\n");
        }
        let root = image.display();
        let script = FILES[0].2.replace(" /etc", &format!(" {root}/etc")).replace(" /usr", &format!(" {root}/usr"));
        let script = script.replace(" /lib", &format!(" {root}/lib")).replace("</etc", &format!("<{root}/etc"));
        let made = image.join("made");
        let _ = fs::remove_dir_all(&made);
        fs::create_dir(&made).unwrap();
        let said = Command::new("sh").args(["-c", &script, "sh"]).args([&made, &made, &made]).output().unwrap();
        assert_eq!((said.status.success(), String::from_utf8_lossy(&said.stderr).as_ref()), (true, ""));
        let mut names: Vec<_> =
            fs::read_dir(&made).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(file: &Path, mode: u32, text: &str) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn units_are_made_only_of_what_the_image_has() {
        let scratch = Scratch::new("lean-generator");
        let image = scratch.path();
        assert_eq!(generate(image, "usr/lib"), [""; 0]);
        write(&image.join("etc/fstab"), 0o644, "# UNCONFIGURED\n\n");
        write(&image.join("etc/rc.local"), 0o644, "");
        write(&image.join("etc/init.d/README"), 0o644, "");
        write(&image.join("etc/init.d/hwclock.sh"), 0o755, "");
        write(&image.join("lib/systemd/system/hwclock.service"), 0o644, "");
        assert_eq!(generate(image, "usr/lib"), [""; 0]);
        write(&image.join("etc/init.d/old"), 0o755, "");
        assert_eq!(generate(image, "usr/lib"), ["systemd-sysv-generator"]);
        write(&image.join("etc/fstab"), 0o644, "# one\nnone /srv tmpfs");
        write(&image.join("etc/rc.local"), 0o755, "");
        let all = ["systemd-fstab-generator", "systemd-rc-local-generator", "systemd-sysv-generator"];
        assert_eq!(generate(image, "usr/lib"), all);
        // What the image has masked stays so.
        let masked = image.join("etc/systemd/system-generators");
        fs::create_dir_all(&masked).unwrap();
        symlink("/dev/null", masked.join("systemd-sysv-generator")).unwrap();
        assert_eq!(generate(image, "lib"), all[..2]);
    }
}
