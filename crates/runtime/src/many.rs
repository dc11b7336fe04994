//! What containers that start together have in common is found out and made once, not for each of them.

use crate::ranges::Pool;
use crate::rootfs::Opened;
use crate::{Runtime, system};
use offshoot_engine::Hollow;
use offshoot_plan::Host;
use offshoot_system::Facts;
use std::sync::Arc;

/// What they have in common.
#[derive(Debug)]
pub struct Common {
    /// What they show where nothing is to be seen.
    pub(crate) hollow: Option<Hollow>,
    /// The host, as a configuration without huge pages needs it.
    pub(crate) host: Host,
    /// The ids that they may have.
    pub(crate) pool: Pool,
    /// What systems can have of this machine.
    pub(crate) facts: Facts,
    /// Where their images are.
    pub(crate) opened: Opened,
}

impl Runtime {
    /// Gives back what processes that started many have taken ahead and not needed. When they have ended.
    pub fn tidy(&self) {
        if let Some(common) = &self.common {
            common.pool.tidy();
        }
    }

    /// Prepares for many system containers that start now. In a process with one thread.
    pub fn for_many(self) -> Runtime {
        let common = || {
            let host = self.host_for(&offshoot_spec::Spec::default()).ok()?;
            // Where it cannot be made, each container makes its own or says why not.
            let hollow = Hollow::new().ok();
            let (pool, facts) = (Pool::of_host().for_many(), system::facts(None, None));
            Some(Common { hollow, host, pool, facts, opened: Opened::default() })
        };
        Runtime { common: common().map(Arc::new), rootless: Some(self.is_rootless()), ..self }
    }
}
