//! Traced functions: their probes, and what the kernel side keeps of them.

use std::os::fd::OwnedFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, PerCpuHashMap};
use descry_abi::function::{ArgumentPlaces, CallerKey, FunctionKey, FunctionTotals, OpenCalls};
use descry_decode::ids::{FunctionNumber, Tgid};

use super::{OBJECT, Session, take};
use crate::ProbeError;
use crate::uprobe::program::{MapFds, Programs};
use crate::uprobe::{Hook, Refused, Site};

/// How functions are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Events a second at most; 0: none.
    pub event_rate: u32,
}

impl Functions {
    /// Time between two events (ns); 0: no events.
    pub(super) fn interval(self) -> u64 {
        1_000_000_000_u64.checked_div(self.event_rate.into()).unwrap_or(0)
    }
}

macro_rules! pods {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            struct $name($inner);

            // SAFETY: repr(C) without padding, asserted where the type is defined.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pods! {
    /// A [`FunctionKey`] as aya wants it.
    Key(FunctionKey);
    /// A [`FunctionTotals`] as aya wants it.
    Totals(FunctionTotals);
    /// A [`CallerKey`] as aya wants it.
    Caller(CallerKey);
    /// An [`OpenCalls`] as aya wants it.
    Open(OpenCalls);
    /// An [`ArgumentPlaces`] as aya wants it.
    Arguments(ArgumentPlaces);
}

/// The part of a session that traces functions.
pub(super) struct Tracing {
    maps: MapFds,
    programs: Option<Programs>,
    totals: PerCpuHashMap<MapData, Key, Totals>,
    open: HashMap<MapData, Caller, Open>,
    arguments: HashMap<MapData, u32, Arguments>,
    entries: Vec<OwnedFd>,
    exits: Vec<OwnedFd>,
}

impl Tracing {
    /// Before anything else is taken from the object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let maps = MapFds::of(ebpf)?;
        let totals = take(ebpf, "FUNCTION_TOTALS")?;
        let open = take(ebpf, "OPEN_CALLS")?;
        let arguments = take(ebpf, "FUNCTION_ARGUMENTS")?;
        Ok(Self {
            maps,
            programs: None,
            totals: totals.try_into().map_err(ProbeError::map("FUNCTION_TOTALS"))?,
            open: open.try_into().map_err(ProbeError::map("OPEN_CALLS"))?,
            arguments: arguments.try_into().map_err(ProbeError::map("FUNCTION_ARGUMENTS"))?,
            entries: Vec::new(),
            exits: Vec::new(),
        })
    }

    pub(super) fn load(&mut self) -> Result<(), ProbeError> {
        self.programs = Some(Programs::load(OBJECT, &self.maps, &Hook::FUNCTIONS)?);
        Ok(())
    }
}

/// What is kept of a function in a process.
#[derive(Clone, Copy, Debug)]
pub struct FunctionFigures {
    /// Which.
    pub key: FunctionKey,
    /// The totals, over all CPUs.
    pub totals: FunctionTotals,
    /// Calls that have begun and not ended.
    pub open: u64,
}

impl Session {
    fn tracing(&mut self) -> Result<&mut Tracing, ProbeError> {
        self.tracing.as_mut().ok_or(ProbeError::Missing { name: Hook::Enter.program() })
    }

    /// Attaches to places of a file. Exits go before entries, so that no call is followed whose end is not. Returns the
    /// places that the kernel refused.
    pub fn attach_functions(
        &mut self,
        hook: Hook,
        file: &Path,
        tgid: Option<Tgid>,
        sites: &[Site],
    ) -> Result<Vec<Refused>, ProbeError> {
        let tracing = self.tracing()?;
        let programs = tracing.programs.as_ref().ok_or(ProbeError::Missing { name: hook.program() })?;
        let linked = programs.link(hook, file, tgid, sites)?;
        match hook {
            Hook::Enter | Hook::Pass | Hook::TlsEnter => tracing.entries.extend(linked.links),
            Hook::Leave | Hook::Exit | Hook::TlsLeave | Hook::TlsExit => tracing.exits.extend(linked.links),
        }
        Ok(linked.refused)
    }

    /// Detaches from all places: from the entries first, so that what has begun may end.
    pub fn detach_functions(&mut self) {
        if let Some(tracing) = &mut self.tracing {
            tracing.entries.clear();
            tracing.exits.clear();
        }
    }

    /// Tells where a function's arguments are.
    pub fn set_arguments(
        &mut self,
        function: FunctionNumber,
        places: ArgumentPlaces,
    ) -> Result<(), ProbeError> {
        let error = ProbeError::map("FUNCTION_ARGUMENTS");
        self.tracing()?.arguments.insert(function.0, Arguments(places), 0).map_err(error)
    }

    /// What is kept of every function that was called.
    pub fn functions(&mut self) -> Result<Vec<FunctionFigures>, ProbeError> {
        let tracing = self.tracing()?;
        let mut all: std::collections::HashMap<FunctionKey, FunctionFigures> = Default::default();
        let figures = |key| FunctionFigures { key, totals: FunctionTotals::default(), open: 0 };
        for key in tracing.totals.keys() {
            let key = key.map_err(ProbeError::map("FUNCTION_TOTALS"))?;
            let figures = all.entry(key.0).or_insert_with(|| figures(key.0));
            match tracing.totals.get(&key, 0) {
                Ok(cpus) => cpus.iter().for_each(|cpu| add(&mut figures.totals, &cpu.0)),
                // Another process's entry may go while the keys are read.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(ProbeError::map("FUNCTION_TOTALS")(error)),
            }
        }
        for entry in tracing.open.iter() {
            let (_, Open(calls)) = entry.map_err(ProbeError::map("OPEN_CALLS"))?;
            for call in calls.calls.iter().take(calls.depth as usize) {
                let key = FunctionKey { function: call.function, tgid: calls.tgid };
                all.entry(key).or_insert_with(|| figures(key)).open += 1;
            }
        }
        Ok(all.into_values().collect())
    }

    /// Keeps nothing more of a function in a process that has ended.
    pub fn forget_function(&mut self, key: FunctionKey) -> Result<(), ProbeError> {
        match self.tracing()?.totals.remove(&Key(key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(ProbeError::map("FUNCTION_TOTALS")(error)),
        }
    }
}

fn add(to: &mut FunctionTotals, from: &FunctionTotals) {
    to.durations.count += from.durations.count;
    to.durations.sum = to.durations.sum.saturating_add(from.durations.sum);
    to.durations.max = to.durations.max.max(from.durations.max);
    for (to, from) in to.durations.buckets.iter_mut().zip(&from.durations.buckets) {
        *to += from;
    }
    to.unfinished += from.unfinished;
    to.too_deep += from.too_deep;
    to.limited += from.limited;
    to.ring_full += from.ring_full;
}
