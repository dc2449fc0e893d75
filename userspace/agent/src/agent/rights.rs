//! Gives away what the agent does not need, before it starts a thread: rights are a thread's own, and new threads have
//! those of the one that starts them.

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What is kept, where it is there.
const KEPT: [Capability; 6] = [
    // Load programs; attach them and read what they measure. Also later, when the configuration changes.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    // Read who a process is and what it has mapped; open files below its root and of its mappings.
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_CHECKPOINT_RESTORE,
    Capability::CAP_DAC_READ_SEARCH,
    // Addresses of the kernel's functions.
    Capability::CAP_SYSLOG,
];

/// No new rights by any program from now on, and only those that are needed.
///
/// # Errors
/// If the system refuses; the caller decides whether to go on with more than is needed.
pub fn drop_unneeded() -> Result<()> {
    prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    let held = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| held.contains(capability)).collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        let unneeded = caps::read(None, CapSet::Bounding).context("cannot read the bounding set")?;
        for capability in unneeded.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)
                .with_context(|| format!("cannot give up {capability} for good"))?;
        }
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient).context("cannot clear the ambient capabilities")?;
    }
    caps::clear(None, CapSet::Inheritable).context("cannot clear the inheritable capabilities")?;
    caps::set(None, CapSet::Effective, &kept).context("cannot set the effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("cannot set the permitted capabilities")?;
    Ok(())
}
