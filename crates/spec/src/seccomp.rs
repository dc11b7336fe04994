//! `linux.seccomp`. spec: config-linux.md#seccomp

use crate::config::json;
use serde::{Deserialize, Serialize};

json! {
/// A system call filter.
pub struct Seccomp {
    /// `SCMP_ACT_…` for calls that no rule names.
    pub default_action: String,
    /// errno of the default action; EPERM when absent.
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; the native one always counts.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`; absent and empty differ.
    pub flags: Option<Vec<String>>,
    /// Socket of the agent that answers `SCMP_ACT_NOTIFY`.
    pub listener_path: String,
    /// Sent to the agent as it is.
    pub listener_metadata: String,
    /// Rules.
    pub syscalls: Vec<Syscall>,
}}

json! {
/// One rule for several calls.
pub struct Syscall {
    /// Names; unknown ones are passed over.
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    pub action: String,
    /// errno or trace value.
    pub errno_ret: Option<u32>,
    /// All must hold.
    pub args: Vec<Arg>,
}}

json! {
/// A comparison of one argument.
pub struct Arg {
    /// 0 to 5.
    pub index: u32,
    /// Operand, or the mask of MASKED_EQ.
    pub value: u64,
    /// The masked value of MASKED_EQ.
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}}
