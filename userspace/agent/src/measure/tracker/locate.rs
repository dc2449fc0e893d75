//! Where the frames of a stack lie, and under which name it is counted.

use std::sync::Arc;

use descry_abi::limits::MAX_USER_FRAMES;
use descry_aggregate::{CodeRef, Observation};
use descry_decode::ids::{Comm, FileOffset, RuntimeAddress, Tgid};
use descry_decode::{Sample, StackCopy, UnwindEnd};
use descry_process::identity;
use descry_process::object::ObjectId;
use descry_process::table::Resolved;
use descry_unwind::walk::Stack;

use super::{HeldObject, Tracker};
use crate::measure::blocked;
use crate::measure::process_code::ProcessCode;

/// Resources kept at most: as many as the aggregator keeps processes.
const MAX_RESOURCES: usize = 1 << 16;
/// Binaries held open until their symbols are read at most.
const MAX_HELD: usize = 4096;

/// The stack of an event, and where each of its frames lies.
pub struct Located<'a> {
    /// The name of its process.
    pub process: Arc<str>,
    /// Leaf first, kernel frames before user frames; every address lies inside of the call or instruction that counts.
    pub code: &'a [CodeRef],
    /// Whether frames are missing at the root's end.
    pub truncated: bool,
}

impl Located<'_> {
    /// What the aggregator adds for the sample that this is the stack of.
    pub fn observation(&self, sample: &Sample) -> Observation<'_> {
        Observation {
            tgid: sample.tgid,
            process_name: &self.process,
            tid: sample.tid,
            comm: sample.comm,
            cpu: sample.cpu,
            time: sample.time,
            weight: sample.weight,
            stack: self.code,
            truncated: self.truncated,
        }
    }
}

impl Tracker {
    /// Where each frame of an event's stack lies. Counts it.
    pub fn locate(&mut self, sample: &Sample) -> Located<'_> {
        self.counters.stacks += 1;
        let copy = self.copies.remove(&(sample.tid, sample.time));
        let mut end = sample.end;
        let mut walked = None;
        if sample.kernel_thread {
            self.counters.without_user_stack += 1;
        } else {
            self.learn(sample.tgid);
            self.tables.track(sample.tgid);
            if let Some(copy) = copy.filter(|_| sample.has_copy).and_then(blocked::with_memory) {
                let walk = self.walk(&copy);
                // The kernel's walk may have come further: it is not bound to the length of the copy.
                if walk.1 == UnwindEnd::Root || walk.0.len() >= sample.user.len() {
                    (walked, end) = (Some(walk.0), walk.1);
                }
            }
        }
        let user = walked.as_deref().unwrap_or(&sample.user);
        self.scratch.clear();
        // The first address of each kind is the interrupted instruction; the others are return addresses, and the call
        // is what counts.
        let call = |index: usize, address: RuntimeAddress| {
            RuntimeAddress(address.0.wrapping_sub(u64::from(index > 0)))
        };
        let kernel = sample.kernel.iter().enumerate();
        self.scratch.extend(kernel.map(|(index, address)| CodeRef::Kernel(call(index, *address))));
        for (index, address) in user.iter().enumerate() {
            let code = self.place(sample.tgid, call(index, *address));
            self.scratch.push(code);
        }
        self.counters.frames += self.scratch.len() as u64;
        let truncated = !matches!(end, UnwindEnd::Root | UnwindEnd::NoUserStack);
        if !sample.kernel_thread {
            *(if truncated { &mut self.counters.truncated } else { &mut self.counters.rooted }) += 1;
        }
        Located { process: self.process_name(sample.tgid, sample.comm), code: &self.scratch, truncated }
    }

    /// Walks a copied stack in userspace.
    fn walk(&mut self, copy: &StackCopy) -> (Vec<RuntimeAddress>, UnwindEnd) {
        self.counters.walked += 1;
        let mut code = ProcessCode {
            tgid: copy.tgid,
            processes: &mut self.processes,
            tables: &mut self.tables,
            reread: &mut self.reread,
        };
        let stack = Stack { start: copy.start, bytes: &copy.stack };
        let walk = self.walker.walk(&copy.registers, stack, &mut code, MAX_USER_FRAMES);
        (walk.frames, walk.end)
    }

    fn place(&mut self, tgid: Tgid, address: RuntimeAddress) -> CodeRef {
        match self.processes.resolve(tgid, address) {
            Resolved::Object { id, address } => {
                self.hold(id, tgid);
                CodeRef::Object { id, address }
            }
            Resolved::Anonymous => CodeRef::Jit { tgid, address },
            Resolved::Unreadable { name, offset } => CodeRef::Unreadable { name, offset },
            Resolved::Vsyscall => {
                CodeRef::Unreadable { name: "[vsyscall]".into(), offset: FileOffset(address.0) }
            }
            Resolved::Unknown => CodeRef::Unknown(address),
        }
    }

    /// Keeps a binary open for its symbols, whatever becomes of the file and the process.
    fn hold(&mut self, id: ObjectId, tgid: Tgid) {
        if self.held.contains_key(&id) {
            return;
        }
        match self.processes.objects().get(id) {
            Some(object) if self.held.len() < MAX_HELD => {
                self.held.insert(id, HeldObject { object: Arc::clone(object), tgid });
            }
            _ => self.counters.not_held += 1,
        }
    }

    /// The name that the stacks of a process begin with; `comm` where nothing is known of it. Also notes its Resource.
    pub fn process_name(&mut self, tgid: Tgid, comm: Comm) -> Arc<str> {
        let known = self.processes.get(tgid);
        let own = known.map(|process| process.identity.comm).filter(|comm| !comm.as_bytes().is_empty());
        let comm = own.unwrap_or(comm);
        let name = match self.names.get(&tgid) {
            Some((known, name)) if *known == comm => Arc::clone(name),
            _ => {
                let name: Arc<str> = comm.to_string().into();
                self.names.insert(tgid, (comm, Arc::clone(&name)));
                name
            }
        };
        let key = (tgid, Arc::clone(&name));
        if !self.resources.contains_key(&key) && self.resources.len() < MAX_RESOURCES {
            let options = self.resource_options;
            let resource =
                known.map(|process| identity::resource(tgid, &process.identity, &self.host, options));
            self.resources.insert(key, resource.unwrap_or_default());
        }
        name
    }
}
