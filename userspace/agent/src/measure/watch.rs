//! What is loaded and followed while something is measured, for as long as it takes.

use anyhow::Context;
use descry_decode::ids::{BootNanos, Tgid, UnixNanos};
use descry_probe::{Exclusion, Options, Scope, Session, SideBand, Wake};
use descry_process::identity::ResourceOptions;
use descry_process::namespace::PidNamespace;
use nix::time::{ClockId, clock_gettime};

use super::tables::UnwindTables;
use super::{Consumer, Tracker};
use crate::failure::Failure;

/// The smallest ring.
const MIN_RING: u32 = 4 << 20;

/// What to load to watch every process, with so many chunks of unwind tables at most: nothing is measured.
///
/// # Errors
/// When descry's own pid namespace cannot be found out.
pub fn options(table_chunks: u32) -> anyhow::Result<Options> {
    let namespace = PidNamespace::current().context("cannot read /proc/self/ns/pid")?;
    Ok(Options {
        scope: Scope::All,
        follow: false,
        comm: None,
        executables: Vec::new(),
        pid_namespace: (!namespace.is_initial()).then_some(namespace.inode as u32),
        sampling: None,
        syscalls: None,
        off_cpu: None,
        net: None,
        functions: None,
        exclusions: Exclusion::default(),
        kernel_stacks: true,
        ring_bytes: MIN_RING,
        table_chunks,
    })
}

/// The kernel side and what keeps up with it. Dropping it detaches everything.
pub struct Watch {
    /// Programs and maps.
    pub session: Session,
    /// News of mappings.
    pub side_band: SideBand,
    /// Processes and binaries.
    pub tracker: Tracker,
    /// What ends a wait for the next drain early.
    pub wake: Wake,
}

impl Watch {
    /// Loads, follows processes, and makes the tables of `processes`. Nothing is measured yet.
    ///
    /// # Errors
    /// What the kernel or the rights do not allow.
    pub fn start(
        options: &Options,
        processes: &[Tgid],
        resource_options: ResourceOptions,
        consumer: &mut dyn Consumer,
    ) -> Result<Self, Failure> {
        let mut session = Session::load(options)?;
        let tables = UnwindTables::new(session.take_tables()?).context("cannot start a thread")?;
        let mut tracker = Tracker::new(tables, resource_options);
        // First the mappings' news, then the state of things, so that nothing falls in between.
        let mut side_band = SideBand::open()?;
        let wake = Wake::new(&session, &side_band)?;
        session.attach_lifecycle()?;
        for tgid in processes {
            tracker.expect(*tgid);
        }
        tracker.settle(&mut session, &mut side_band, &mut |tracker, event| consumer.event(tracker, event))?;
        Ok(Self { session, side_band, tracker, wake })
    }

    /// Hands the consumer what there is now. Returns the bytes that the ring held.
    ///
    /// # Errors
    /// What the kernel refuses, and what the consumer says.
    pub fn drain(&mut self, consumer: &mut dyn Consumer) -> Result<u64, Failure> {
        let bytes = self.follow(consumer)?;
        consumer.drained(&mut self.session, &mut self.tracker)?;
        Ok(bytes)
    }

    /// The same while the measurement is still being started.
    pub fn follow(&mut self, consumer: &mut dyn Consumer) -> Result<u64, Failure> {
        let mut handle = |tracker: &mut Tracker, event| consumer.event(tracker, event);
        Ok(self.tracker.tick(&mut self.session, &mut self.side_band, &mut handle)? as u64)
    }
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Unix time.
    pub unix: UnixNanos,
    /// Unix time minus boot time (ns).
    pub boot_to_unix: i64,
}

impl Clocks {
    /// As they are now.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn read() -> anyhow::Result<Self> {
        let (boot, unix) = (read(ClockId::CLOCK_BOOTTIME)?, read(ClockId::CLOCK_REALTIME)?);
        Ok(Self { unix: UnixNanos(unix.unsigned_abs()), boot_to_unix: unix - boot })
    }

    /// The time that events are told in.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn boot() -> anyhow::Result<BootNanos> {
        Ok(BootNanos(read(ClockId::CLOCK_BOOTTIME)?.unsigned_abs()))
    }
}

fn read(clock: ClockId) -> anyhow::Result<i64> {
    let time = clock_gettime(clock).context("cannot read the clock")?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Binaries are held open until their symbols are read.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
