//! Sockets: connections and messages.

use aya::maps::{Array, HashMap, MapData};
use aya::programs::ProgramError;
use aya::{Btf, BtfError};
use descry_abi::limits::SCOPE_FILTER_SLOTS;
use descry_abi::net::{
    MAX_CAPTURE, MAX_WIDE_CAPTURE, VERDICT_BYTES, VERDICT_IGNORE, VERDICT_IGNORE_PLAINTEXT,
};
use descry_abi::template::{Family, HAS_STATE, MAY_COUNT, START_WORDS};
use descry_abi::unit::UnitRule;
use descry_decode::ids::{ConnectionId, Tgid};

use super::tcp::TcpMaps;
use super::templates::TemplateMaps;
use super::{Session, raw_program, take, tracing_program};
use crate::ProbeError;
use crate::doctor::Feature;
use crate::memory::give_memory_back;

/// A program and the tracepoint that it is attached to.
type Hook = (&'static str, &'static str);

/// Since Linux 6.3 (net/socket.c).
const BY_SOCKET: [Hook; 2] = [("socket_received", "sock_recv_length"), ("socket_sent", "sock_send_length")];
const BY_CALL: [Hook; 1] = [("socket_call_ended", "sys_exit")];
const STATES: [Hook; 3] = [
    ("socket_destroyed", "tcp_destroy_sock"),
    ("socket_retransmitted", "tcp_retransmit_skb"),
    ("socket_state", "inet_sock_set_state"),
];

/// How messages are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketHooks {
    /// By the sockets' own tracepoints: calls that touch no socket pay nothing.
    Sockets,
    /// At the end of every system call, on kernels before 6.3.
    Calls,
}

/// Maps of the programs on sockets. Each has a single entry where sockets are not watched.
pub(super) const MAPS: [&str; 15] = [
    "CONNECTIONS",
    "CONNECTS",
    "TCP_PEERS",
    "TEMPLATES",
    "EXCHANGE_COUNTS",
    "TEMPLATES_BY_KEY",
    "VERDICTS",
    "THREAD_REQUESTS",
    "HABITS",
    "UNITS",
    "UNIT_RULES",
    "UNIT_FILTER",
    "SERIES",
    "TLS_UNITS",
    "TLS_SESSIONS",
];

/// A [`UnitRule`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Rule(UnitRule);

// SAFETY: repr(C), u32 and i64 without padding.
unsafe impl aya::Pod for Rule {}

/// What userspace writes for the programs on sockets.
pub(super) struct NetMaps {
    verdicts: HashMap<MapData, u64, u32>,
    unit_rules: HashMap<MapData, u32, Rule>,
    unit_filter: Array<MapData, u64>,
    pub(super) tcp: TcpMaps,
    pub(super) templates: TemplateMaps,
}

/// What is wanted of a connection's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// Nothing of its plaintext. What was thought of its ciphertext says nothing of that.
    NothingOfPlaintext,
    /// Their beginnings.
    Messages {
        /// How much of each.
        bytes: Captured,
        /// Whether they may equal templates.
        family: Option<Family>,
        /// Whether exchanges of traces that are not taken may be counted without being told.
        counts: bool,
    },
}

/// How much of a message is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// Its first 4 KiB. So it is from the beginning.
    Head,
    /// Its first 32 KiB.
    Most,
}

impl Wanted {
    fn verdict(self) -> u32 {
        let (bytes, family, counts) = match self {
            Self::Nothing => return VERDICT_IGNORE,
            Self::NothingOfPlaintext => return VERDICT_IGNORE_PLAINTEXT,
            Self::Messages { bytes, family, counts } => (bytes, family, counts),
        };
        let bytes = match bytes {
            Captured::Head => MAX_CAPTURE as u32,
            Captured::Most => MAX_WIDE_CAPTURE,
        };
        let Some(Family { number, start_words, has_state }) = family else { return bytes };
        let may_count = if counts { MAY_COUNT } else { 0 };
        let state = if has_state { HAS_STATE } else { 0 };
        let templates = (u32::from(start_words) & START_WORDS) | may_count | state;
        (((templates << 8) | u32::from(number)) * (VERDICT_BYTES + 1)) | bytes
    }
}

impl Session {
    pub(super) fn take_net_maps(&mut self) -> Result<(), ProbeError> {
        let (verdicts, unit_rules) = (take(&mut self.ebpf, "VERDICTS")?, take(&mut self.ebpf, "UNIT_RULES")?);
        let unit_filter = take(&mut self.ebpf, "UNIT_FILTER")?;
        self.net = Some(NetMaps {
            verdicts: verdicts.try_into().map_err(ProbeError::map("VERDICTS"))?,
            unit_rules: unit_rules.try_into().map_err(ProbeError::map("UNIT_RULES"))?,
            unit_filter: unit_filter.try_into().map_err(ProbeError::map("UNIT_FILTER"))?,
            tcp: TcpMaps::take(&mut self.ebpf)?,
            templates: TemplateMaps::take(&mut self.ebpf)?,
        });
        Ok(())
    }

    /// Loads the programs that see connections and messages. The kernel takes half a second to check them.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn load_net(&mut self) -> Result<(), ProbeError> {
        self.load_raw(&STATES)?;
        if Feature::SocketTracepoints.is_hidden() {
            return Ok(());
        }
        let types = Btf::from_sys_fs().map_err(|error| ProbeError::program(BY_SOCKET[0].0, &error.into()))?;
        for (name, tracepoint) in BY_SOCKET {
            match tracing_program(&mut self.ebpf, name)?.load(tracepoint, &types) {
                // Such a kernel is asked for calls.
                Err(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) => break,
                loaded => loaded.map_err(|error| ProbeError::program(name, &error))?,
            }
        }
        drop(types);
        give_memory_back();
        Ok(())
    }

    /// Attaches the programs that [`Session::load_net`] has loaded. What is received is seen before what is sent: a request
    /// whose answer was not seen would wait for the next one's.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn attach_net(&mut self) -> Result<SocketHooks, ProbeError> {
        self.attach_raw(&STATES)?;
        if !Feature::SocketTracepoints.is_hidden() {
            let Err(error) = self.attach_by_socket() else { return Ok(SocketHooks::Sockets) };
            tracing::debug!(%error, "no tracepoints of sockets");
        }
        tracing::info!(
            "this kernel does not tell of sockets (Linux 6.3): looking at the end of every system call"
        );
        self.load_raw(&BY_CALL)?;
        self.attach_raw(&BY_CALL)?;
        Ok(SocketHooks::Calls)
    }

    fn load_raw(&mut self, hooks: &[Hook]) -> Result<(), ProbeError> {
        for (name, _) in hooks.iter().copied() {
            let program = raw_program(&mut self.ebpf, name)?;
            program.load().map_err(|error| ProbeError::program(name, &error))?;
        }
        Ok(())
    }

    fn attach_raw(&mut self, hooks: &[Hook]) -> Result<(), ProbeError> {
        for hook in hooks.iter().copied() {
            let attached = raw_program(&mut self.ebpf, hook.0)?.attach(hook.1);
            attached.map_err(|error| ProbeError::tracepoint(hook.0, hook.1, &error))?;
        }
        Ok(())
    }

    fn attach_by_socket(&mut self) -> Result<(), ProbeError> {
        for hook in BY_SOCKET {
            let attached = tracing_program(&mut self.ebpf, hook.0)?.attach();
            attached.map_err(|error| ProbeError::tracepoint(hook.0, hook.1, &error))?;
        }
        Ok(())
    }

    /// Tells the kernel side what is wanted of a connection. One that is not known any more is no error.
    pub fn want_of_connection(&mut self, connection: ConnectionId, wanted: Wanted) {
        if let Some(net) = &mut self.net
            && let Err(error) = net.verdicts.insert(connection.0, wanted.verdict(), 0)
        {
            tracing::debug!(%error, %connection, ?wanted, "what is wanted of a connection cannot be told");
        }
    }

    /// Tells the kernel side how to find the units of a process. Where there is no room its threads are its units.
    pub fn set_unit_rule(&mut self, tgid: Tgid, rule: UnitRule) {
        let Some(net) = &mut self.net else { return };
        let told = net
            .unit_rules
            .insert(tgid.0, Rule(rule), 0)
            .and_then(|()| net.unit_filter.set(tgid.0 & (SCOPE_FILTER_SLOTS - 1), 1, 0));
        if let Err(error) = told {
            tracing::debug!(%error, %tgid, "the units of a process cannot be followed");
        }
    }
}
