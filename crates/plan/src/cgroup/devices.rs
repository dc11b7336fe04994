//! Device rules: what a list of rules means, by emulating the v1 `devices` controller.
//!
//! An OCI rule list is a history of writes to `devices.allow` and `devices.deny`; cgroup v2 has a program instead.
//! Both get their list from here, so that they agree. kernel: Documentation/admin-guide/cgroup-v1/devices.rst

use crate::Problem;
use offshoot_spec::{Device, DeviceRule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// `c` or `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `b`
    Block,
    /// `c`
    Char,
}

/// What may be done with a device; the bits of `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// Make a node.
    pub const MKNOD: Access = Access(1);
    /// Open for reading.
    pub const READ: Access = Access(2);
    /// Open for writing.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// The `BPF_DEVCG_ACC_*` bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Letters that are none of the three are passed over, as runc does.
    fn parse(text: &str) -> Access {
        text.chars().fold(Access(0), |access, letter| {
            let bit = match letter {
                'r' => Access::READ,
                'w' => Access::WRITE,
                'm' => Access::MKNOD,
                _ => Access(0),
            };
            Access(access.0 | bit.0)
        })
    }

    fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')] {
            if self.0 & bit.0 != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// Devices that one exception is about; `None` is every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Match {
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Character or block.
    pub kind: Kind,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_string(), |n| n.to_string());
        let kind = if self.kind == Kind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// A device list: everything is allowed or denied, but for exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// What happens to a device without an exception.
    pub default_allow: bool,
    /// Exceptions, each with the opposite of `default_allow`, in the order of the rules that made them.
    pub exceptions: Vec<(Match, Access)>,
}

/// One line for `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which of the two files.
    pub allow: bool,
    /// `c 1:3 rwm`
    pub text: String,
}

/// The state of a v1 devices cgroup.
#[derive(Default)]
struct Emulator {
    default_allow: bool,
    exceptions: Vec<(Match, Access)>,
}

/// What is written: a pattern, or `a`, which starts over whatever stands behind it.
enum Subject {
    All,
    Some(Match, Access),
}

impl Emulator {
    fn apply(&mut self, allow: bool, subject: &Subject) -> Result<(), String> {
        match *subject {
            Subject::All => *self = Emulator { default_allow: allow, exceptions: Vec::new() },
            Subject::Some(devices, access) if allow != self.default_allow => match self.held(&devices) {
                Some(held) => held.0 |= access.0,
                None => self.exceptions.push((devices, access)),
            },
            Subject::Some(devices, access) => self.remove(devices, access)?,
        }
        Ok(())
    }

    /// The kernel ignores a request to take some devices out of an exception with a wildcard. A rule that does
    /// nothing gives false security, so it is refused.
    fn remove(&mut self, devices: Match, access: Access) -> Result<(), String> {
        let wider = [
            Match { major: None, ..devices },
            Match { minor: None, ..devices },
            Match { major: None, minor: None, ..devices },
        ];
        for wide in wider.into_iter().filter(|wide| *wide != devices) {
            if let Some(held) = self.held(&wide)
                && held.0 & access.0 != 0
            {
                return Err(format!(
                    "requested rule [{devices} {access}] not supported by devices cgroupv1 (cannot punch hole in \
                     existing wildcard rule [{wide} {held}])"
                ));
            }
        }
        if let Some(held) = self.held(&devices) {
            *held = held.without(access);
        }
        self.exceptions.retain(|(_, held)| !held.is_empty());
        Ok(())
    }

    fn held(&mut self, devices: &Match) -> Option<&mut Access> {
        self.exceptions.iter_mut().find(|(found, _)| found == devices).map(|(_, held)| held)
    }

    fn list(self) -> DeviceList {
        DeviceList { default_allow: self.default_allow, exceptions: self.exceptions }
    }
}

/// The list that `rules`, and after them the rules of the devices every container has, leave behind.
/// `nodes` are the nodes of the config: one that takes the place of a default device takes its rule away too.
#[must_use]
pub fn list(rules: &[DeviceRule], nodes: &[Device], problems: &mut Vec<Problem>) -> DeviceList {
    let mut emulator = Emulator::default();
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("linux.resources.devices[{index}]");
        match subject(rule, index) {
            Ok(subject) => {
                if let Err(message) = emulator.apply(rule.allow, &subject) {
                    problems.push(Problem::new(path, message));
                }
            }
            Err((field, message)) => problems.push(Problem::new(format!("{path}.{field}"), message)),
        }
    }
    for (node, devices, access) in DEFAULTS {
        let replaced = !node.is_empty() && nodes.iter().any(|d| d.path == node);
        if !replaced && let Err(message) = emulator.apply(true, &Subject::Some(devices, access)) {
            problems.push(Problem::new("linux.resources.devices", message));
        }
    }
    emulator.list()
}

const fn char_device(major: u32, minor: Option<u32>) -> Match {
    Match { kind: Kind::Char, major: Some(major), minor }
}

/// runc's defaults, which callers rely on: making any node, and using those of the default devices, of
/// pseudo-terminals, and `/dev/net/tun`.
const DEFAULTS: [(&str, Match, Access); 11] = [
    ("", Match { kind: Kind::Char, major: None, minor: None }, Access::MKNOD),
    ("", Match { kind: Kind::Block, major: None, minor: None }, Access::MKNOD),
    ("/dev/null", char_device(1, Some(3)), Access::ALL),
    ("/dev/random", char_device(1, Some(8)), Access::ALL),
    ("/dev/full", char_device(1, Some(7)), Access::ALL),
    ("/dev/tty", char_device(5, Some(0)), Access::ALL),
    ("/dev/zero", char_device(1, Some(5)), Access::ALL),
    ("/dev/urandom", char_device(1, Some(9)), Access::ALL),
    ("", char_device(136, None), Access::ALL),
    ("", char_device(5, Some(2)), Access::ALL),
    ("", char_device(10, Some(200)), Access::ALL),
];

fn subject(rule: &DeviceRule, index: usize) -> Result<Subject, (&'static str, String)> {
    if rule.access.is_empty() {
        return Err(("access", format!("device access at {index} field cannot be empty")));
    }
    let access = Access::parse(&rule.access);
    let kind = match rule.kind.as_str() {
        "" | "a" => return Ok(Subject::All),
        "c" => Kind::Char,
        "b" => Kind::Block,
        other => return Err(("type", format!("invalid cgroup device type {other:?}"))),
    };
    let number = |field, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| (field, format!("invalid {field} {n}"))),
    };
    let devices = Match { kind, major: number("major", rule.major)?, minor: number("minor", rule.minor)? };
    Ok(Subject::Some(devices, access))
}

impl DeviceList {
    /// Whether every device may be used.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.default_allow && self.exceptions.is_empty()
    }

    /// What the kernel decides about one request. kernel: `devcgroup_legacy_check_permission`.
    #[must_use]
    pub fn allows(&self, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let about = |devices: &Match| {
            devices.kind == kind && devices.major.is_none_or(|m| m == major) && devices.minor.is_none_or(|m| m == minor)
        };
        self.exceptions.iter().filter(|(devices, _)| about(devices)).any(|(_, held)| {
            // One exception must grant all that is asked; to refuse, it need only touch it.
            if self.default_allow { held.0 & access.0 != 0 } else { access.without(*held).is_empty() }
        }) != self.default_allow
    }

    /// Whether both mean the same: the order of exceptions does not count.
    #[must_use]
    pub fn is_same(&self, other: &DeviceList) -> bool {
        let sorted = |list: &DeviceList| list.exceptions.iter().copied().collect::<BTreeMap<_, _>>();
        self.default_allow == other.default_allow && sorted(self) == sorted(other)
    }

    /// The state that `devices.list` shows. A list that starts from "all is allowed" shows only that, never its
    /// exceptions: it reads as if it had none.
    ///
    /// # Errors
    /// The line that is not one of the kernel's.
    pub fn parse(text: &str) -> Result<DeviceList, String> {
        let mut emulator = Emulator::default();
        for line in text.lines() {
            let subject = parse_line(line).ok_or_else(|| format!("malformed devices.list rule {line}"))?;
            emulator.apply(true, &subject)?;
        }
        Ok(emulator.list())
    }

    /// The lines that turn a cgroup whose list is `self` into `target`, taking nothing away, even for a moment,
    /// that both have. What is new comes in the order of its rules, which `devices.list` keeps (spec:
    /// config-linux.md#allowed-device-list).
    #[must_use]
    pub fn transition(&self, target: &DeviceList) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut old = self.exceptions.as_slice();
        // The exceptions of "all is allowed" cannot be read back, so such a list is never kept.
        if self.default_allow || target.default_allow {
            lines.push(Line { allow: target.default_allow, text: "a".into() });
            old = &[];
        }
        let new = target.exceptions.as_slice();
        let mut add = |allow, from: &[(Match, Access)], minus: &[(Match, Access)]| {
            let minus: BTreeMap<Match, Access> = minus.iter().copied().collect();
            for (devices, access) in from {
                let rest = access.without(minus.get(devices).copied().unwrap_or_default());
                if !rest.is_empty() {
                    lines.push(Line { allow, text: format!("{devices} {rest}") });
                }
            }
        };
        add(target.default_allow, old, new);
        add(!target.default_allow, new, old);
        lines
    }
}

fn parse_line(line: &str) -> Option<Subject> {
    let mut fields = line.split([' ', ':']).filter(|field| !field.is_empty());
    let (kind, major, minor, access) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let kind = match kind {
        "a" => return Some(Subject::All),
        "b" => Kind::Block,
        "c" => Kind::Char,
        _ => return None,
    };
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let access = Some(Access::parse(access)).filter(|access| !access.is_empty())?;
    Some(Subject::Some(Match { kind, major: number(major)?, minor: number(minor)? }, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, text: &str) -> DeviceRule {
        let mut fields = text.split([' ', ':']);
        let mut next = || fields.next().unwrap().to_string();
        let (kind, major, minor, access) = (next(), next(), next(), next());
        DeviceRule { allow, kind, major: major.parse().ok(), minor: minor.parse().ok(), access }
    }

    fn emulate(rules: &[(bool, &str)]) -> Result<DeviceList, String> {
        let mut emulator = Emulator::default();
        for (index, (allow, text)) in rules.iter().enumerate() {
            emulator.apply(*allow, &subject(&rule(*allow, text), index).unwrap())?;
        }
        Ok(emulator.list())
    }

    #[test]
    fn permissions_add_up_and_are_taken_away() {
        let list = emulate(&[(true, "c 1:3 r"), (true, "c 1:3 w"), (true, "b 8:0 rwm"), (false, "c 1:3 r")]).unwrap();
        let text: Vec<String> = list.exceptions.iter().map(|(m, a)| format!("{m} {a}")).collect();
        assert_eq!(text, ["c 1:3 w", "b 8:0 rwm"]);
        assert!(!list.allows(Kind::Char, 1, 3, Access::READ));
        assert!(list.allows(Kind::Char, 1, 3, Access::WRITE));
        assert!(!list.allows(Kind::Char, 1, 3, Access::ALL));
    }

    #[test]
    fn a_starts_over() {
        let list = emulate(&[(true, "c 1:3 r"), (true, "a *:* rwm")]).unwrap();
        assert!(list.allows_all());
        let list = emulate(&[(true, "a *:* rwm"), (false, "c 1:3 w"), (false, "a *:* rwm")]).unwrap();
        assert_eq!(list, DeviceList::default());
    }

    #[test]
    fn a_denial_touches_every_request_that_includes_it() {
        let list = emulate(&[(true, "a *:* rwm"), (false, "c 1:3 w")]).unwrap();
        assert!(list.allows(Kind::Char, 1, 3, Access::READ));
        assert!(!list.allows(Kind::Char, 1, 3, Access(Access::READ.0 | Access::WRITE.0)));
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error = emulate(&[(true, "c 1:* rwm"), (false, "c 1:3 r")]).unwrap_err();
        assert!(error.contains("cannot punch hole in existing wildcard rule [c 1:* rwm]"), "{error}");
        assert!(emulate(&[(true, "c 1:* rw"), (false, "c 1:3 m")]).is_ok());
        assert!(emulate(&[(true, "c *:* rwm"), (false, "c *:* m")]).is_ok());
    }

    #[test]
    fn a_transition_takes_nothing_away_that_stays() {
        let from = DeviceList::parse("c 1:3 rwm\nc 1:5 rw\nb *:* m\n").unwrap();
        let to = DeviceList::parse("c 1:3 r\nc 1:5 rw\nc 5:* w\n").unwrap();
        let lines: Vec<_> = from.transition(&to).into_iter().map(|l| (l.allow, l.text)).collect();
        let expected = [(false, "c 1:3 wm"), (false, "b *:* m"), (true, "c 5:* w")];
        assert_eq!(lines, expected.map(|(allow, text)| (allow, text.to_string())));
        assert!(from.transition(&from).is_empty());
        let other_order = DeviceList::parse("b *:* m\nc 1:5 rw\nc 1:3 rwm\n").unwrap();
        assert!(from.is_same(&other_order) && from.transition(&other_order).is_empty() && !from.is_same(&to));
        // spec: config-linux.md#allowed-device-list: "The runtime MUST apply entries in the listed order".
        let rules = [rule(true, "c 10:229 rwm"), rule(true, "b 8:0 r")];
        let lines = DeviceList::default().transition(&list(&rules, &[], &mut Vec::new()));
        assert_eq!((lines[0].text.as_str(), lines[1].text.as_str()), ("c 10:229 rwm", "b 8:0 r"));
        let all = DeviceList::parse("a *:* rwm\n").unwrap();
        assert_eq!(all.transition(&to)[0], Line { allow: false, text: "a".into() });
        assert!(DeviceList::parse("c 1:x rwm").is_err() && DeviceList::parse("c 1:2").is_err());
    }

    #[test]
    fn a_node_of_the_config_replaces_the_default_rule() {
        let null = Device { path: "/dev/null".into(), kind: "c".into(), ..Device::default() };
        let mut problems = Vec::new();
        assert!(list(&[], &[], &mut problems).allows(Kind::Char, 1, 3, Access::ALL));
        assert!(!list(&[], &[null], &mut problems).allows(Kind::Char, 1, 3, Access::READ));
        assert!(problems.is_empty());
    }
}
