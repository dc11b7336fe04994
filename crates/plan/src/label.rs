//! SELinux labels of mounts. spec: config-linux.md#mount-label

use crate::problem::Report;
use offshoot_spec::Spec;

/// crun's annotation, which Podman's users set: which of the kernel's options the label is for.
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// The label, and the option of a new file system that gives it. Both are empty without a label.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountLabel {
    /// The label itself.
    pub label: String,
    /// `context=LABEL`.
    pub option: String,
}

/// Decides the label. Where SELinux is off it names nothing: no file has a label there, and no process is confined by one,
/// since a `process.selinuxLabel` is refused.
pub fn plan(spec: &Spec, selinux: bool, report: &mut Report) -> MountLabel {
    let kind = spec.annotations.get(CONTEXT_TYPE).map_or("context", String::as_str);
    if !matches!(kind, "context" | "fscontext" | "defcontext" | "rootcontext") {
        let text = format!("{kind:?} is none of context, fscontext, defcontext and rootcontext");
        report.problem(format!("annotations[{CONTEXT_TYPE}]"), text);
    }
    match spec.linux.as_ref().map(|linux| linux.mount_label.clone()) {
        Some(label) if !label.is_empty() && selinux => MountLabel { option: format!("{kind}={label}"), label },
        Some(label) if !label.is_empty() => {
            report.warn("linux.mountLabel has no effect: SELinux is disabled or not supported");
            MountLabel::default()
        }
        _ => MountLabel::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(annotation: Option<&str>, selinux: bool) -> (MountLabel, Report) {
        let mut spec: Spec =
            serde_json::from_str(r#"{"ociVersion":"1.3.0","linux":{"mountLabel":"a:b:c:s0:c1,c2"}}"#).unwrap();
        spec.annotations.extend(annotation.map(|kind| (CONTEXT_TYPE.into(), kind.into())));
        let mut report = Report::default();
        (plan(&spec, selinux, &mut report), report)
    }

    #[test]
    fn a_label_is_a_context_unless_the_annotation_says_otherwise() {
        assert_eq!(decide(None, true).0.option, "context=a:b:c:s0:c1,c2");
        assert_eq!(decide(Some("rootcontext"), true).0.option, "rootcontext=a:b:c:s0:c1,c2");
        assert_eq!(decide(None, true).0.label, "a:b:c:s0:c1,c2");
        let (_, report) = decide(Some("uid"), true);
        assert_eq!(report.problems[0].path, "annotations[run.oci.mount_context_type]");
    }

    #[test]
    fn without_selinux_it_is_a_warning() {
        let (label, report) = decide(None, false);
        assert_eq!(label, MountLabel::default());
        assert!(report.problems.is_empty() && report.warnings[0].contains("mountLabel"), "{:?}", report.warnings);
    }
}
