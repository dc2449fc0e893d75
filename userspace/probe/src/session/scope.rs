//! Which tasks are watched, and the maps that say so.

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use descry_abi::limits::SCOPE_FILTER_SLOTS;
use descry_abi::scope::{ExecutableKey, SCOPE_SEVERAL};
use descry_decode::ids::{CgroupId, Tgid};

use super::{Options, take};
use crate::ProbeError;

/// Which tasks are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of these processes, and of those that `Options::comm`, `executables` and `follow` add.
    Processes(Vec<Tgid>),
    /// Those in these cgroups or below.
    Cgroups(Vec<CgroupId>),
}

/// An [`ExecutableKey`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Executable(ExecutableKey);

// SAFETY: repr(C), u64 + u32 + u32 without padding.
unsafe impl aya::Pod for Executable {}

/// The maps. They are written before any program runs, and must live until those that use them are loaded.
pub struct ScopeMaps {
    tgids: HashMap<MapData, u32, u32>,
    filter: Array<MapData, u64>,
    cgroups: HashMap<MapData, u64, u32>,
    executables: HashMap<MapData, Executable, u32>,
}

impl ScopeMaps {
    /// Takes them out of the object and fills them.
    pub fn filled(ebpf: &mut Ebpf, options: &Options) -> Result<Self, ProbeError> {
        let tgids = take(ebpf, "SCOPE_TGIDS")?.try_into().map_err(ProbeError::map("SCOPE_TGIDS"))?;
        let filter = take(ebpf, "SCOPE_FILTER")?.try_into().map_err(ProbeError::map("SCOPE_FILTER"))?;
        let cgroups = take(ebpf, "SCOPE_CGROUPS")?.try_into().map_err(ProbeError::map("SCOPE_CGROUPS"))?;
        let executables =
            take(ebpf, "SCOPE_EXECUTABLES")?.try_into().map_err(ProbeError::map("SCOPE_EXECUTABLES"))?;
        let mut maps = Self { tgids, filter, cgroups, executables };
        maps.fill(options)?;
        Ok(maps)
    }

    fn fill(&mut self, options: &Options) -> Result<(), ProbeError> {
        match &options.scope {
            Scope::All => {}
            Scope::Processes(tgids) => tgids.iter().try_for_each(|tgid| self.watch(*tgid))?,
            Scope::Cgroups(ids) => {
                let mut insert = |id: &CgroupId| self.cgroups.insert(id.0, 0, 0);
                ids.iter().try_for_each(&mut insert).map_err(ProbeError::map("SCOPE_CGROUPS"))?;
            }
        }
        let mut insert = |key: &ExecutableKey| self.executables.insert(Executable(*key), 0, 0);
        options.executables.iter().try_for_each(&mut insert).map_err(ProbeError::map("SCOPE_EXECUTABLES"))
    }

    /// Puts a process in scope.
    fn watch(&mut self, tgid: Tgid) -> Result<(), ProbeError> {
        self.tgids.insert(tgid.0, 0, 0).map_err(ProbeError::map("SCOPE_TGIDS"))?;
        let slot = tgid.0 & (SCOPE_FILTER_SLOTS - 1);
        let failed = ProbeError::map("SCOPE_FILTER");
        let word = match self.filter.get(&slot, 0).map_err(&failed)? {
            0 => tgid.0.into(),
            only if only == u64::from(tgid.0) => only,
            _ => SCOPE_SEVERAL,
        };
        self.filter.set(slot, word, 0).map_err(failed)
    }
}
