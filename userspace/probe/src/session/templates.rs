//! Exchanges that the kernel side knows again, and requests of that kind that wait for their answers.

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use descry_abi::histogram::Histogram;
use descry_abi::net::{Connection, MAX_CONNECTIONS, Role};
use descry_abi::template::{CountKey, MAX_COUNT_ROWS, Template, TemplateKey};
use descry_decode::KnownExchange;
use descry_decode::ids::{BootNanos, ConnectionId, RequestId, TemplateId, Tgid, Tid, UnitId};

use super::{Session, take};
use crate::ProbeError;

/// A [`TemplateKey`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(TemplateKey);

// SAFETY: repr(C), two u32 and a u64 without padding.
unsafe impl aya::Pod for Key {}

/// A [`Template`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(Template);

// SAFETY: repr(C), eight u32 and words without padding.
unsafe impl aya::Pod for Value {}

/// A [`Connection`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Known(Connection);

// SAFETY: repr(C), integers without padding.
unsafe impl aya::Pod for Known {}

/// A [`CountKey`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Row(CountKey);

// SAFETY: repr(C), a u64 and two u32 without padding.
unsafe impl aya::Pod for Row {}

/// A [`Histogram`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counts(Histogram);

// SAFETY: repr(C), words without padding.
unsafe impl aya::Pod for Counts {}

/// What userspace writes and reads.
pub(super) struct TemplateMaps {
    templates: Array<MapData, Value>,
    by_key: HashMap<MapData, Key, u32>,
    connections: HashMap<MapData, u64, Known>,
    counts: HashMap<MapData, Row, Counts>,
}

impl TemplateMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let (templates, by_key) = (take(ebpf, "TEMPLATES")?, take(ebpf, "TEMPLATES_BY_KEY")?);
        Ok(Self {
            templates: templates.try_into().map_err(ProbeError::map("TEMPLATES"))?,
            by_key: by_key.try_into().map_err(ProbeError::map("TEMPLATES_BY_KEY"))?,
            counts: take(ebpf, "EXCHANGE_COUNTS")?.try_into().map_err(ProbeError::map("EXCHANGE_COUNTS"))?,
            connections: take(ebpf, "CONNECTIONS")?.try_into().map_err(ProbeError::map("CONNECTIONS"))?,
        })
    }
}

impl Session {
    /// Tells the kernel side of a template. Its number is one that was never used, or not for seconds, or it is the same but
    /// for the one that is asked next.
    pub fn put_template(&mut self, id: TemplateId, template: &Template) {
        let Some(net) = &mut self.net else { return };
        // What it is of comes behind the rest: what is found is whole.
        let templates = &mut net.templates.templates;
        let told = templates.set(id.0, Value(Template { of: 0, ..*template }), 0);
        if let Err(error) = told.and_then(|()| templates.set(id.0, Value(*template), 0)) {
            tracing::debug!(%error, %id, "a template cannot be told");
        }
    }

    /// Tells which template is the first that is found by a key; none: none is.
    pub fn find_template(&mut self, key: TemplateKey, first: Option<TemplateId>) {
        let Some(net) = &mut self.net else { return };
        let by_key = &mut net.templates.by_key;
        let told = match first {
            Some(first) => by_key.insert(Key(key), first.0, 0),
            None => by_key.remove(&Key(key)),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "what finds a template cannot be told");
        }
    }

    /// No message equals this template any more, which stays as it is but for that.
    pub fn remove_template(&mut self, id: TemplateId, template: &Template) {
        let Some(net) = &mut self.net else { return };
        if let Err(error) = net.templates.templates.set(id.0, Value(Template { of: 0, ..*template }), 0) {
            tracing::debug!(%error, %id, "a template cannot be taken back");
        }
    }

    /// What exchanges that are not told add up to, since each row was made.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn exchange_counts(&self) -> Result<Vec<(CountKey, Histogram)>, ProbeError> {
        let Some(net) = &self.net else { return Ok(Vec::new()) };
        let rows = net.templates.counts.iter().take(2 * MAX_COUNT_ROWS as usize);
        let rows = rows.map(|row| row.map(|(key, durations)| (key.0, durations.0)));
        rows.collect::<Result<_, _>>().map_err(ProbeError::map("EXCHANGE_COUNTS"))
    }

    /// Forgets a row, of a connection that was closed. One that is gone already is no error.
    pub fn forget_exchange_count(&mut self, key: CountKey) {
        if let Some(net) = &mut self.net {
            let _ = net.templates.counts.remove(&Row(key));
        }
    }

    /// The requests that equal a template and have no answer yet: nobody was told of them.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn waiting_requests(&self) -> Result<Vec<KnownExchange>, ProbeError> {
        let Some(net) = &self.net else { return Ok(Vec::new()) };
        let mut waiting = Vec::new();
        // Connections come and go meanwhile: the walk begins again where one does on whose place it is.
        for row in net.templates.connections.iter().take(2 * MAX_CONNECTIONS as usize) {
            let (_, Known(connection)) = row.map_err(ProbeError::map("CONNECTIONS"))?;
            let of = connection.waiting;
            if of.which != 0 {
                waiting.push(KnownExchange {
                    connection: ConnectionId(connection.id),
                    is_client: connection.role == Role::Connected as u8,
                    template: TemplateId(of.which as u32),
                    start: BootNanos(of.start),
                    end: BootNanos(of.start),
                    tgid: Tgid((of.ids >> 32) as u32),
                    tid: Tid(of.ids as u32),
                    offset: of.offset,
                    answer: None,
                    unit: UnitId(of.unit),
                    request: RequestId(of.request),
                });
            }
        }
        Ok(waiting)
    }
}
