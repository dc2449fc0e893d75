//! Libraries and programs that do TLS: each file is probed once, for as long as a watched process uses it.

use std::path::Path;
use std::sync::Arc;

use descry_abi::tls::TlsCookie;
use descry_decode::ids::Tgid;
use descry_function::{TlsPlace, TlsPlaces, mentions_tls, tls_places};
use descry_probe::{Scope, Session, Site, TlsProbes, TlsSites};
use descry_process::object::{FileReference, Object, ObjectId};
use descry_process::table::MappingTarget;
use descry_process::target::executable;
use rustc_hash::{FxHashMap, FxHashSet};

use super::units::Units;
use crate::measure::Tracker;
use crate::target::Target;

/// Bytes of a file that is looked through at most: it lies in memory meanwhile.
const MAX_FILE: u64 = 1 << 30;
/// Files that were looked through, remembered at most; 100 B each.
const MAX_FILES: usize = 65_536;
/// Processes whose files are remembered at most.
const MAX_PROCESSES: usize = 65_536;
/// Where systems keep the library that most programs use, and its names.
const DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
];
const LIBRARIES: [&str; 2] = ["libssl.so.3", "libssl.so.1.1"];
/// The tables of names: of what other files use, and of everything.
const NAMES: [&str; 2] = [".dynstr", ".strtab"];

/// Who may be watched.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The one process that is watched; then probes cost no other process anything.
    pub only: Option<Tgid>,
    /// Whether programs that are still to start may be.
    pub grows: bool,
    /// Whether any process may be, whoever it is.
    pub is_broad: bool,
}

impl Reach {
    /// Every process.
    pub const ANY: Self = Self { only: None, grows: true, is_broad: true };

    /// Of a command's target, and the program that it starts.
    pub fn of(target: &Target, command: &[String]) -> Self {
        let only = match target.processes.as_slice() {
            // A child that is followed would not run into probes of its parent alone.
            [only] if target.is_fixed && !target.follow => Some(*only),
            _ => None,
        };
        Self {
            only,
            grows: !target.is_fixed || target.follow || !command.is_empty(),
            is_broad: !matches!(target.scope, Scope::Processes(_)),
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsCounted {
    /// Files that were probed.
    pub files: u64,
    /// Files that do TLS in a way that cannot be probed.
    pub unprobeable: u64,
}

/// A file that was looked through.
enum File {
    /// It does no TLS that could be seen.
    Other,
    /// It is probed, for as many processes.
    Probed { _probes: TlsProbes, users: usize },
}

/// The files.
pub struct TlsFiles {
    reach: Reach,
    files: FxHashMap<ObjectId, File>,
    /// Files of each process that are probed.
    used: FxHashMap<Tgid, Vec<ObjectId>>,
    /// Processes to look at.
    met: FxHashSet<Tgid>,
    /// Processes that ended, or run another program.
    gone: Vec<Tgid>,
    counted: TlsCounted,
}

impl TlsFiles {
    /// None yet.
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            files: FxHashMap::default(),
            used: FxHashMap::default(),
            met: FxHashSet::default(),
            gone: Vec::new(),
            counted: TlsCounted::default(),
        }
    }

    /// A process is there, or has mapped more files.
    pub fn met(&mut self, tgid: Tgid) {
        if self.met.len() < MAX_PROCESSES {
            self.met.insert(tgid);
        }
    }

    /// A process ended, or runs another program.
    pub fn forget(&mut self, tgid: Tgid) {
        self.met.remove(&tgid);
        if self.used.contains_key(&tgid) {
            self.gone.push(tgid);
        }
    }

    /// What was counted.
    pub fn counted(&self) -> TlsCounted {
        self.counted
    }

    /// Probes the system's libraries, which programs that are still to start will use. They stay probed: that costs nothing
    /// while nobody uses them.
    pub fn expect(&mut self, session: &mut Session, tracker: &mut Tracker, units: &mut Units) {
        let own = Tgid(std::process::id());
        for directory in DIRECTORIES {
            for library in LIBRARIES {
                let path = Path::new(directory).join(library);
                // Most of them are not there.
                let Ok(inode) = executable(&path) else { continue };
                let (build_id, range) = (None, None);
                let reference =
                    FileReference { path: &path, inode: Some(inode), build_id, range, current: false };
                if let Ok(object) = tracker.processes().objects().acquire(own, &reference) {
                    self.look(session, units, &object);
                    // Nobody's use of it ends.
                    self.used_by(&object, own);
                }
            }
        }
    }

    /// Probes what is new, and lets go what nobody uses any more.
    pub fn follow(&mut self, session: &mut Session, tracker: &mut Tracker, units: &mut Units) {
        for tgid in std::mem::take(&mut self.gone) {
            self.release(tgid);
        }
        for tgid in std::mem::take(&mut self.met) {
            tracker.learn(tgid);
            let mappings =
                tracker.processes().get(tgid).map(|process| process.mappings()).unwrap_or_default();
            let mut ids: Vec<ObjectId> = mappings
                .iter()
                .filter_map(|mapping| match mapping.target {
                    MappingTarget::Object { id, .. } => Some(id),
                    _ => None,
                })
                .collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let Some(object) = tracker.processes().objects().get(id).cloned() else { continue };
                self.look(session, units, &object);
                self.used_by(&object, tgid);
            }
        }
    }

    fn used_by(&mut self, object: &Object, tgid: Tgid) {
        let Some(File::Probed { users, .. }) = self.files.get_mut(&object.id) else { return };
        let used = self.used.entry(tgid).or_default();
        if !used.contains(&object.id) {
            used.push(object.id);
            *users += 1;
        }
    }

    fn release(&mut self, tgid: Tgid) {
        for id in self.used.remove(&tgid).unwrap_or_default() {
            if let Some(File::Probed { users, .. }) = self.files.get_mut(&id) {
                *users = users.saturating_sub(1);
                if *users == 0 {
                    // Should somebody use it again, it is looked through again.
                    self.files.remove(&id);
                }
            }
        }
    }

    /// Looks through a file that was not looked through before, and probes it if it does TLS.
    fn look(&mut self, session: &mut Session, units: &mut Units, object: &Arc<Object>) {
        if self.files.contains_key(&object.id) {
            return;
        }
        if self.files.len() >= MAX_FILES {
            self.files.retain(|_, file| matches!(file, File::Probed { .. }));
        }
        let file = self.probed(session, units, object).map_or(File::Other, |probes| {
            tracing::debug!(path = %object.path, "its TLS is probed");
            self.counted.files += 1;
            File::Probed { _probes: probes, users: 0 }
        });
        self.files.insert(object.id, file);
    }

    fn probed(&mut self, session: &mut Session, units: &mut Units, object: &Object) -> Option<TlsProbes> {
        let open_path = object.open_path()?;
        if object.is_go && !units.knows(object) {
            tracing::info!(path = %object.path, "a version of Go that is not known: its TLS is not seen");
            return None;
        }
        if !object.is_go && !mentions(object) {
            return None;
        }
        let bytes = object.read_all(MAX_FILE).inspect_err(|error| {
            tracing::info!("cannot look for TLS in {}: {error}", object.path);
        });
        let places = tls_places(&bytes.ok()?).ok()?;
        if !places.is_useful() {
            if !places.unprobeable.is_empty() {
                self.counted.unprobeable += 1;
                tracing::info!(path = %object.path, "its TLS cannot be seen: {}", reasons(&places));
            }
            return None;
        }
        let probes = session.attach_tls(&open_path, self.reach.only, &sites(&places));
        match probes {
            Ok(probes) if probes.refused.is_empty() => Some(probes),
            Ok(probes) => {
                self.counted.unprobeable += 1;
                for refused in &probes.refused {
                    let (offset, reason) = (refused.site.offset, &refused.reason);
                    tracing::warn!(path = %object.path, %offset, %reason, "the kernel does not probe TLS");
                }
                None
            }
            Err(error) => {
                self.counted.unprobeable += 1;
                tracing::warn!(%error, "TLS cannot be seen");
                None
            }
        }
    }
}

/// Whether a file that is not Go's has functions of TLS, or uses some: names are looked for before the whole file is read.
fn mentions(object: &Object) -> bool {
    NAMES.into_iter().any(|name| {
        let section = object.read_section(name).ok().flatten();
        section.is_some_and(|section| mentions_tls(&section.data))
    })
}

fn reasons(places: &TlsPlaces) -> String {
    let reasons = places.unprobeable.iter().map(|(function, why)| format!("{function:?}: {why}"));
    reasons.collect::<Vec<_>>().join("; ")
}

fn sites(places: &TlsPlaces) -> TlsSites {
    let site = |place: &TlsPlace| {
        let cookie = TlsCookie::new(place.function, place.shift, place.unless.map(|condition| condition.0));
        Site { offset: place.offset, cookie: descry_abi::function::Cookie(cookie.0), semaphore: None }
    };
    TlsSites {
        entries: places.entries.iter().map(site).collect(),
        returns: places.returns.iter().map(site).collect(),
        exits: places.exits.iter().map(site).collect(),
    }
}
