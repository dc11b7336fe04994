//! Cgroups: which directories, which files get which values, which devices, which systemd unit.

pub mod systemd;
