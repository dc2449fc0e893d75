//! One program at many places of a file.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use aya_obj::generated::bpf_attach_type::{BPF_PERF_EVENT, BPF_TRACE_UPROBE_MULTI};
use aya_obj::generated::bpf_cmd::BPF_LINK_CREATE;
use aya_obj::generated::{BPF_F_UPROBE_MULTI_RETURN, perf_event_attr};
use descry_decode::ids::Tgid;

use super::system::{attributes, bpf};
use super::{Refused, Site};

/// The kind of perf event that uprobes are.
const PERF_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// The bit of a perf event's `config` that makes it a return probe: `config:0`.
const PERF_RETURN: &str = "/sys/bus/event_source/devices/uprobe/format/retprobe";
/// A perf event's `config` has the semaphore's offset from this bit on (`PERF_UPROBE_REF_CTR_OFFSET_SHIFT`,
/// kernel/events/core.c).
const PERF_SEMAPHORE_SHIFT: u32 = 32;
/// linux/perf_event.h.
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;

/// Places of a file that a program is to be attached to.
pub(crate) struct Places<'a> {
    /// The program.
    pub program: &'a OwnedFd,
    /// A path that opens the file.
    pub file: &'a CStr,
    /// The process whose use of the file counts; none: everybody's.
    pub tgid: Option<Tgid>,
    /// Whether the program runs at the return from each place.
    pub is_return: bool,
}

/// Links that were made, and places that were refused.
#[derive(Default)]
pub(crate) struct Linked {
    /// Dropping one detaches it. Those of perf events follow their event.
    pub links: Vec<OwnedFd>,
    /// Places without a link.
    pub refused: Vec<Refused>,
}

/// Whether the kernel has links to many places. Asks for one to a directory: who knows such links says that it is no file.
pub(crate) fn knows_multi(program: &OwnedFd) -> bool {
    let places = Places { program, file: c"/", tgid: None, is_return: false };
    let site = Site { offset: Default::default(), cookie: Default::default(), semaphore: None };
    multi(&places, &[site]).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Links all at once. One place that the kernel refuses fails the whole link, so a failed half is halved again.
pub(crate) fn many(places: &Places<'_>, sites: &[Site], to: &mut Linked) {
    if sites.is_empty() {
        return;
    }
    match (multi(places, sites), sites) {
        (Ok(link), _) => to.links.push(link),
        (Err(reason), [site]) => to.refused.push(Refused { site: *site, reason }),
        (Err(_), _) => {
            let (first, second) = sites.split_at(sites.len() / 2);
            many(places, first, to);
            many(places, second, to);
        }
    }
}

/// Links one by one.
pub(crate) fn one_by_one(places: &Places<'_>, sites: &[Site], to: &mut Linked) {
    for site in sites {
        match single(places, site) {
            Ok(both) => to.links.extend(both),
            Err(reason) => to.refused.push(Refused { site: *site, reason }),
        }
    }
}

fn multi(places: &Places<'_>, sites: &[Site]) -> io::Result<OwnedFd> {
    let offsets: Vec<u64> = sites.iter().map(|site| site.offset.0).collect();
    let cookies: Vec<u64> = sites.iter().map(|site| site.cookie.0).collect();
    let semaphores: Vec<u64> = sites.iter().map(|site| site.semaphore.unwrap_or_default().0).collect();
    let mut attr = attributes();
    // SAFETY: the three arrays have `cnt` entries; they and the path outlive the call.
    unsafe {
        let create = &mut attr.link_create;
        create.__bindgen_anon_1.prog_fd = places.program.as_raw_fd() as u32;
        create.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        let multi = &mut create.__bindgen_anon_3.uprobe_multi;
        multi.path = places.file.as_ptr() as u64;
        multi.offsets = offsets.as_ptr() as u64;
        multi.cookies = cookies.as_ptr() as u64;
        if sites.iter().any(|site| site.semaphore.is_some()) {
            multi.ref_ctr_offsets = semaphores.as_ptr() as u64;
        }
        multi.cnt = sites.len() as u32;
        multi.flags = if places.is_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 };
        multi.pid = places.tgid.map_or(0, |tgid| tgid.0);
        bpf(BPF_LINK_CREATE, &mut attr)
    }
}

/// A perf event at one place, and the link of the program to it.
fn single(places: &Places<'_>, site: &Site) -> io::Result<[OwnedFd; 2]> {
    let number = |path, prefix| -> io::Result<u32> {
        let text = std::fs::read_to_string(path)?;
        let text = text.trim().trim_start_matches(prefix);
        text.parse().map_err(|_| io::Error::other(format!("{path} holds no number")))
    };
    // SAFETY: a perf_event_attr of zeros is valid.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.type_ = number(PERF_TYPE, "")?;
    attr.size = size_of::<perf_event_attr>() as u32;
    if places.is_return {
        attr.config |= 1 << number(PERF_RETURN, "config:")?;
    }
    attr.config |= site.semaphore.unwrap_or_default().0 << PERF_SEMAPHORE_SHIFT;
    attr.__bindgen_anon_3.config1 = places.file.as_ptr() as u64;
    attr.__bindgen_anon_4.config2 = site.offset.0;
    // A process's event counts for all of its threads, on any CPU; everybody's needs one CPU to be named, and counts on all.
    let (pid, cpu) = places.tgid.map_or((-1, 0), |tgid| (tgid.0 as i32, -1));
    // SAFETY: the attribute and the path outlive the call; group -1 is none (perf_event_open(2)).
    let event = unsafe {
        let fd =
            libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut attr = attributes();
    // SAFETY: there are no addresses in the attributes.
    let link = unsafe {
        let create = &mut attr.link_create;
        create.__bindgen_anon_1.prog_fd = places.program.as_raw_fd() as u32;
        create.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
        create.attach_type = BPF_PERF_EVENT as u32;
        create.__bindgen_anon_3.perf_event.bpf_cookie = site.cookie.0;
        bpf(BPF_LINK_CREATE, &mut attr)?
    };
    Ok([link, event])
}
