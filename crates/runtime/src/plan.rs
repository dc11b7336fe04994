//! `plan`: what `run` would do, without doing it.

use crate::bundle::Bundle;
use crate::create::both;
use crate::rootfs::{self, Look, Rootfs};
use crate::system::Take;
use crate::{Result, Runtime};
use offshoot_plan::{Plan, Request, Step};
use offshoot_snapshot as snapshot;
use std::fmt::{self, Display};
use std::path::Path;

impl Runtime {
    /// Decides a container from a bundle, as `run` would. Nothing is made or changed, and root is not needed.
    ///
    /// # Errors
    /// Everything that is wrong with the bundle, with the places in `config.json`.
    pub fn plan(&self, id: &str, bundle: &Path, store: Option<&Path>) -> Result<Script> {
        crate::id::check(id)?;
        let bundle = Bundle::open(bundle)?;
        let look = Look { id, store, closely: false, opened: None };
        let (system, _) = self.system(&bundle, look, Take::Nothing)?;
        let bundle = system.as_ref().map_or(&bundle, |system| &system.bundle);
        // Who is not root cannot look into the store; the bundle can still be planned for.
        let may_look = nix::unistd::geteuid().is_root();
        let steps = |request: Option<snapshot::Request>| match request {
            Some(request) if may_look => Rootfs::find(&request, look).map(|found| Some(found.steps())),
            Some(request) => Ok(Some(vec![format!("clone the image {}", request.image)])),
            None => Ok(None),
        };
        let asked = rootfs::request(&bundle.spec).and_then(steps);
        let request = Request {
            id: id.to_owned(),
            bundle: bundle.path.clone(),
            systemd_cgroup: self.systemd_cgroup,
            rootless: self.is_rootless(),
            root_mount: self.root_mount(&asked, bundle),
            ..Request::default()
        };
        let request = system.as_ref().map_or(request.clone(), |system| system.request(request));
        let (plan, clone) = both(offshoot_plan::build(&bundle.spec, &request, &self.host_for(&bundle.spec)?), asked)?;
        Ok(Script { plan, clone: clone.unwrap_or_default() })
    }
}

/// A plan to be read: who does what, in order. What the host does while the container waits stands below the wait.
#[derive(Debug)]
pub struct Script {
    plan: Plan,
    /// What is done about a cloned root filesystem.
    clone: Vec<String>,
}

impl Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        for warning in &plan.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(f, "container {}\nbundle    {}\nroot      {}", plan.id, plan.bundle.display(), plan.rootfs.display())?;
        for hierarchy in &plan.cgroup.hierarchies {
            let names = if hierarchy.is_unified() { "unified".into() } else { hierarchy.controllers.join(",") };
            writeln!(f, "cgroup    {} ({names})", hierarchy.mount_point.join(&hierarchy.path).display())?;
        }
        for write in &plan.cgroup.limits.writes {
            writeln!(f, "limit     {} = {}", write.file, write.value)?;
        }
        writeln!(f, "process   {:?}\n", plan.process.args)?;
        for step in &self.clone {
            writeln!(f, "host      {step}")?;
        }
        for step in plan.prepare() {
            writeln!(f, "host      {step}")?;
        }
        for step in plan.entry.launcher.iter().flatten() {
            line(f, plan, "launcher", step)?;
        }
        if plan.entry.launcher.is_some() {
            writeln!(f, "launcher  clone init")?;
        }
        plan.steps.iter().try_for_each(|step| line(f, plan, "init", step))
    }
}

fn line(f: &mut fmt::Formatter<'_>, plan: &Plan, who: &str, step: &Step) -> fmt::Result {
    writeln!(f, "{who:9} {step}")?;
    let Step::Sync(point) = step else { return Ok(()) };
    plan.host(*point).iter().try_for_each(|step| writeln!(f, "host        {step}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use crate::{Kind, Log};
    use std::fs;

    fn plan(text: &str, name: &str) -> Result<String> {
        let scratch = Scratch::new(name);
        fs::create_dir(scratch.path().join("rootfs")).unwrap();
        fs::write(scratch.path().join("config.json"), text).unwrap();
        let runtime = Runtime::new(Some(&scratch.path().join("root")), Log::none()).unwrap();
        let script = runtime.plan("x", scratch.path(), None).map(|script| script.to_string());
        assert!(!runtime.root.exists());
        script
    }

    #[test]
    fn a_plan_reads_from_the_cgroup_to_the_exec() {
        let text = crate::default_config(false);
        let script = plan(&text, "plan").unwrap();
        let at = |needle: &str| script.find(needle).unwrap_or_else(|| panic!("no {needle:?} in\n{script}"));
        assert!(at("host      make the cgroup") < at("host      clone the first process"));
        assert!(at("host        save the state") < at("init      wait for start"));
        assert!(at("init      wait for start") < at("init      exec the program"));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text =
            r#"{"process":{"cwd":"x","args":["a"]},"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"nope"}]}}"#;
        let error = plan(text, "problems").unwrap_err();
        assert_eq!(error.kind(), Kind::Request);
        let message = error.to_string();
        assert!(message.contains("Cwd must be an absolute path") && message.contains("nope"), "{message}");
    }
}
