//! TLS: probes in the libraries that do it.

use std::os::fd::OwnedFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use descry_decode::ids::Tgid;

use super::{OBJECT, Session, take};
use crate::ProbeError;
use crate::uprobe::program::{MapFds, Programs};
use crate::uprobe::{Hook, Refused, Site};

/// The part of a session that probes TLS.
pub(super) struct Tls {
    maps: MapFds,
    control: Array<MapData, u32>,
    /// Loaded when they are first needed.
    programs: Option<Programs>,
}

impl Tls {
    /// Before anything else is taken from the object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let maps = MapFds::of(ebpf)?;
        let control = take(ebpf, "TLS_CONTROL")?.try_into().map_err(ProbeError::map("TLS_CONTROL"))?;
        Ok(Self { maps, control, programs: None })
    }
}

/// Places in a file. Their cookies begin with a [`descry_abi::tls::TlsFunction`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSites {
    /// Where functions are entered.
    pub entries: Vec<Site>,
    /// Functions of which the kernel's return probe tells the end: where they begin.
    pub returns: Vec<Site>,
    /// Instructions behind which functions return.
    pub exits: Vec<Site>,
}

/// The probes of a file; dropping them detaches them.
#[derive(Debug)]
pub struct TlsProbes {
    /// In the order of being dropped: entries first, so that what has begun may end.
    _links: Vec<OwnedFd>,
    /// Places that the kernel does not probe; then there are no probes at all.
    pub refused: Vec<Refused>,
}

impl Session {
    /// Probes a file's functions of TLS, for one process or for all. Ends go before entries, so that no call is followed
    /// whose end is not.
    ///
    /// # Errors
    /// Where the programs cannot be loaded.
    pub fn attach_tls(
        &mut self,
        file: &Path,
        tgid: Option<Tgid>,
        sites: &TlsSites,
    ) -> Result<TlsProbes, ProbeError> {
        let missing = ProbeError::Missing { name: Hook::TlsEnter.program() };
        let Some(tls) = &mut self.tls else { return Err(missing) };
        if tls.programs.is_none() {
            tls.programs = Some(Programs::load(OBJECT, &tls.maps, &Hook::TLS)?);
        }
        let Some(programs) = &tls.programs else { return Err(missing) };
        // Before the first call is seen: its socket must be looked for.
        tls.control.set(0, 1, 0).map_err(ProbeError::map("TLS_CONTROL"))?;
        let mut links = Vec::new();
        for (hook, sites) in [
            (Hook::TlsLeave, &sites.returns),
            (Hook::TlsExit, &sites.exits),
            (Hook::TlsEnter, &sites.entries),
        ] {
            let linked = programs.link(hook, file, tgid, sites)?;
            if !linked.refused.is_empty() {
                return Ok(TlsProbes { _links: Vec::new(), refused: linked.refused });
            }
            links.splice(0..0, linked.links);
        }
        Ok(TlsProbes { _links: links, refused: Vec::new() })
    }
}
