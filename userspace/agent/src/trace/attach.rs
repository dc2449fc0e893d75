//! From what is to be probed to the kernel's probes.

use std::path::PathBuf;

use descry_abi::function::{COOKIE_ARGUMENTS, COOKIE_GO, Cookie};
use descry_decode::ids::{FileOffset, FunctionNumber, Tgid};
use descry_function::{Exits, Plan, arguments};
use descry_probe::{Hook, Session, Site};
use rustc_hash::FxHashSet;

use super::catalog::{Catalog, How, Item, Work};
use crate::failure::Failure;

/// Refusals that are told one by one; the rest is counted.
const TOLD: u64 = 10;
/// Functions of a file that cannot be probed and are told one by one at most.
const TOLD_OF_FILE: usize = 3;

/// Attaches to everything that was found, for one process or for all.
pub fn attach_all(
    session: &mut Session,
    catalog: &mut Catalog,
    found: &[Work],
    tgid: Option<Tgid>,
) -> Result<(), Failure> {
    for work in found {
        match work.unprobeable.as_slice() {
            few if few.len() <= TOLD_OF_FILE => few.iter().for_each(|(name, why)| {
                tracing::warn!("cannot trace {name} of {}: {why}", work.object.path);
            }),
            many => tracing::warn!(
                "cannot trace {} functions of {} (`descry trace --list` says why)",
                many.len(),
                work.object.path
            ),
        }
        attach(session, catalog, work, tgid)?;
    }
    Ok(())
}

/// Attaches to everything in a file, for one process or for all. A function whose end cannot be seen is not attached to.
fn attach(
    session: &mut Session,
    catalog: &mut Catalog,
    work: &Work,
    tgid: Option<Tgid>,
) -> Result<(), Failure> {
    let Some(path) = work.object.open_path() else { return Ok(()) };
    let go = if work.object.is_go { COOKIE_GO } else { 0 };
    let mut with_arguments = FxHashSet::default();
    for item in &work.items {
        if let Some(traced) = catalog.get(item.number).filter(|traced| !traced.parameters.is_empty()) {
            session.set_arguments(item.number, arguments::places(&traced.parameters))?;
            with_arguments.insert(item.number);
        }
    }
    let cookie = |item: &Item| {
        let arguments = if with_arguments.contains(&item.number) { COOKIE_ARGUMENTS } else { 0 };
        Cookie(u64::from(item.number.0) | go | arguments)
    };
    let site = |item: &Item, offset: FileOffset, semaphore| Site { offset, cookie: cookie(item), semaphore };
    let plans = || {
        work.items.iter().filter_map(|item| match &item.how {
            How::Function(plan) => Some((item, plan)),
            How::Usdt(_) => None,
        })
    };
    let leaves = plans()
        .filter(|(_, plan)| plan.exits == Exits::ReturnProbe)
        .map(|(item, plan)| site(item, plan.entry.offset, None));
    let exits = plans().flat_map(|(item, plan)| exits_of(plan).map(move |offset| (item, offset)));
    let exits = exits.map(|(item, offset)| site(item, offset, None));
    let mut attacher = Attacher { session, catalog, path, tgid, refused: FxHashSet::default() };
    attacher.attach(Hook::Leave, leaves.collect())?;
    attacher.attach(Hook::Exit, exits.collect())?;
    attacher
        .attach(Hook::Enter, plans().map(|(item, plan)| site(item, plan.entry.offset, None)).collect())?;
    let usdt = work.items.iter().filter_map(|item| match &item.how {
        How::Usdt(probe) => Some(site(item, probe.offset, probe.semaphore)),
        How::Function(_) => None,
    });
    attacher.attach(Hook::Pass, usdt.collect())
}

fn exits_of(plan: &Plan) -> impl Iterator<Item = FileOffset> {
    let places = match &plan.exits {
        Exits::ReturnProbe => [].as_slice(),
        Exits::Instructions(places) => places,
    };
    places.iter().map(|place| place.offset)
}

struct Attacher<'a> {
    session: &'a mut Session,
    catalog: &'a mut Catalog,
    path: PathBuf,
    tgid: Option<Tgid>,
    refused: FxHashSet<FunctionNumber>,
}

impl Attacher<'_> {
    fn attach(&mut self, hook: Hook, mut sites: Vec<Site>) -> Result<(), Failure> {
        sites.retain(|site| !self.refused.contains(&FunctionNumber(site.cookie.function())));
        if sites.is_empty() {
            return Ok(());
        }
        for refused in self.session.attach_functions(hook, &self.path, self.tgid, &sites)? {
            let number = FunctionNumber(refused.site.cookie.function());
            self.catalog.counters().refused += 1;
            if self.catalog.counters().refused <= TOLD && self.refused.insert(number) {
                let name = self.catalog.get(number).map(|traced| traced.name.to_string()).unwrap_or_default();
                tracing::warn!(offset = %refused.site.offset, reason = %refused.reason, "the kernel does not probe {name}");
            }
        }
        Ok(())
    }
}
