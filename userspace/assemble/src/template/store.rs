//! All templates: learnt, numbered, given back.

use std::num::NonZeroUsize;
use std::sync::Arc;

use descry_abi::template::{ANSWER, MAX_CHAIN, MAX_TEMPLATES, Template, TemplateKey};
use descry_decode::ids::{BootNanos, TemplateId};
use lru::LruCache;
use rustc_hash::FxHashMap;

use super::{Made, Shapes};
use crate::protocol::Exchange;
use crate::span::Value;

/// Equal requests, and equal answers to them, after which they become templates.
const MANY: u32 = 4;
/// Messages of which it is remembered how often they were seen.
const MAX_SIGHTINGS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Answers to one request that are templates at most.
const MAX_ANSWERS: usize = 16;
/// Circumstances in which one exchange is remembered.
const MAX_CIRCUMSTANCES: usize = 8;
/// How long a number is not given again (ns): what the kernel side was about to tell with it is told by then.
const REST: u64 = 5_000_000_000;
/// How long a template may be of no use before it makes room for another (ns).
const IDLE: u64 = 10_000_000_000;

/// What the kernel side has to be told.
#[derive(Debug)]
pub enum Change {
    /// A template.
    Put(TemplateId, Box<Template>),
    /// The first of those that are found by this.
    Found(TemplateKey, TemplateId),
    /// Nothing is found by this any more.
    Lost(TemplateKey),
    /// No message equals this template any more.
    Remove(TemplateId, Box<Template>),
}

/// A template of either kind.
#[derive(Debug)]
struct Slot {
    key: TemplateKey,
    made: Box<Template>,
    /// Its bytes, as far as they were captured.
    bytes: Box<[u8]>,
    /// When it was last of use.
    used: BootNanos,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With its answers.
    Request(Vec<u32>),
    /// With what the parser made of it and its request in the circumstances of each; the ones that were asked for last are
    /// first.
    Answer(Vec<(u64, Arc<Exchange>)>),
}

/// All templates.
#[derive(Debug)]
pub struct Templates {
    /// By their numbers, from 1 on.
    slots: Vec<Option<Slot>>,
    /// Those that are found by one key, in the order in which the kernel side asks them.
    by_key: FxHashMap<TemplateKey, Vec<u32>>,
    sightings: LruCache<u64, u32>,
    /// Numbers that are free at these times.
    free: Vec<(BootNanos, u32)>,
    /// When room was last made.
    swept: BootNanos,
    changes: Vec<Change>,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            slots: vec![None],
            by_key: FxHashMap::default(),
            sightings: LruCache::new(MAX_SIGHTINGS),
            free: Vec::new(),
            swept: BootNanos(0),
            changes: Vec::new(),
        }
    }
}

/// One exchange as it went over a connection that was at rest before and after it.
pub(crate) struct Seen<'a> {
    /// The whole request.
    pub request: &'a [u8],
    /// The answer as far as it was captured, and its true length.
    pub answer: &'a [u8],
    pub answer_len: u64,
    /// What the exchange depends on beside its bytes.
    pub state: u64,
    /// What the parser made of both.
    pub exchange: &'a Exchange,
    /// When it ended.
    pub now: BootNanos,
}

impl Templates {
    /// Takes an exchange. What comes often becomes a template.
    pub(crate) fn learn(&mut self, shapes: &Shapes, seen: &Seen<'_>) {
        if seen.exchange.context.is_some() || !seen.exchange.answered {
            return;
        }
        let Some(shape) = (shapes.request)(seen.request) else { return };
        let Some(answer) = (shapes.answer)(seen.answer) else { return };
        let (family, len) = (shapes.family, seen.request.len() as u64);
        let made = Made::new(family.number.into(), family.start_words.into(), seen.request, len, &shape);
        let Some(mut made) = made else { return };
        made.template.answer_start = shapes.answer_start;
        let request =
            self.find(&made).or_else(|| self.add(made, seen.request, Kind::Request(Vec::new()), seen.now));
        let Some(request) = request else { return };
        let made = Made::new(ANSWER | request, shapes.answer_start, seen.answer, seen.answer_len, &answer);
        let Some(made) = made else { return };
        let exchange = || Arc::new(shared(seen.exchange));
        if let Some(id) = self.find(&made) {
            if let Some(Slot { kind: Kind::Answer(exchanges), .. }) = self.slot(id)
                && exchanges.iter().all(|(state, _)| *state != seen.state)
            {
                exchanges.truncate(MAX_CIRCUMSTANCES - 1);
                exchanges.insert(0, (seen.state, exchange()));
            }
            return;
        }
        let has_room = matches!(self.slot(request), Some(Slot { kind: Kind::Request(answers), .. }) if answers.len() < MAX_ANSWERS);
        if has_room
            && let Some(id) =
                self.add(made, seen.answer, Kind::Answer(vec![(seen.state, exchange())]), seen.now)
            && let Some(Slot { kind: Kind::Request(answers), .. }) = self.slot(request)
        {
            answers.push(id);
        }
    }

    /// The template that is this one.
    fn find(&self, made: &Made) -> Option<u32> {
        let is_made = |id: &&u32| {
            let slot = self.slots.get(**id as usize).and_then(Option::as_ref);
            // Which other is asked after it says nothing of what equals it.
            slot.is_some_and(|slot| Template { next: 0, ..*slot.made } == *made.template)
        };
        self.by_key.get(&made.key)?.iter().find(is_made).copied()
    }

    /// The bytes of a request that equals a template.
    pub fn request(&mut self, id: TemplateId, now: BootNanos) -> Option<&[u8]> {
        let slot = self.slot(id.0).filter(|slot| matches!(slot.kind, Kind::Request(_)))?;
        slot.used = slot.used.max(now);
        Some(&slot.bytes)
    }

    /// The bytes of an answer that equals a template, as far as they were captured.
    pub fn answer(&mut self, id: TemplateId) -> Option<&[u8]> {
        self.slot(id.0).map(|slot| &*slot.bytes)
    }

    /// What the parser made of an answer that equals a template, and its request, on a connection in this state.
    pub fn exchange(&mut self, id: TemplateId, state: u64, now: BootNanos) -> Option<Arc<Exchange>> {
        let slot = self.slot(id.0)?;
        slot.used = slot.used.max(now);
        let request = slot.key.of & !ANSWER;
        if let Some(request) = self.slot(request) {
            request.used = request.used.max(now);
        }
        let Kind::Answer(exchanges) = &mut self.slot(id.0)?.kind else { return None };
        let at = exchanges.iter().position(|(of, _)| *of == state)?;
        exchanges.get_mut(..=at)?.rotate_right(1);
        exchanges.first().map(|(_, exchange)| Arc::clone(exchange))
    }

    /// The bytes of the request that is answered by what equals a template.
    pub fn request_of(&self, answer: TemplateId) -> Option<&[u8]> {
        let slot = |id: u32| self.slots.get(id as usize)?.as_ref();
        slot(slot(answer.0)?.key.of & !ANSWER).map(|request| &*request.bytes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What the kernel side has to be told since the last call, in this order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// Adds a template, if its like was seen often enough and there is room.
    fn add(&mut self, made: Made, bytes: &[u8], kind: Kind, now: BootNanos) -> Option<u32> {
        let times = self.sightings.get_or_insert_mut(made.fingerprint(), || 0);
        *times += 1;
        if *times < MANY {
            return None;
        }
        let Made { key, mut template } = made;
        if self.by_key.get(&key).is_some_and(|alike| alike.len() >= MAX_CHAIN) {
            return None;
        }
        let id = self.number(now)?;
        let alike = self.by_key.entry(key).or_default();
        // The new one is asked first: no other has to be told anew.
        template.next = alike.first().copied().unwrap_or(0);
        alike.insert(0, id);
        self.changes.push(Change::Put(TemplateId(id), template.clone()));
        self.changes.push(Change::Found(key, TemplateId(id)));
        let slot = Slot { key, made: template, bytes: bytes.into(), used: now, kind };
        *self.slots.get_mut(id as usize)? = Some(slot);
        Some(id)
    }

    /// A number that is free. Where there is none, room is made for later.
    fn number(&mut self, now: BootNanos) -> Option<u32> {
        if let Some(at) = self.free.iter().position(|(since, _)| *since <= now) {
            return Some(self.free.swap_remove(at).1);
        }
        if self.slots.len() < MAX_TEMPLATES as usize {
            self.slots.push(None);
            return u32::try_from(self.slots.len() - 1).ok();
        }
        if now.0.saturating_sub(self.swept.0) >= IDLE {
            self.swept = now;
            self.sweep(now);
        }
        None
    }

    /// Gives back what was of no use lately.
    pub(super) fn sweep(&mut self, now: BootNanos) {
        let is_idle = |slot: &Slot| now.0.saturating_sub(slot.used.0) >= IDLE;
        let idle: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter_map(|(id, slot)| slot.as_ref().is_some_and(is_idle).then_some(id))
            .collect();
        for id in idle {
            let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::take) else { continue };
            self.forget(&slot, id, now);
            match slot.kind {
                Kind::Request(answers) => {
                    for answer in answers {
                        if let Some(slot) = self.slots.get_mut(answer as usize).and_then(Option::take) {
                            self.forget(&slot, answer, now);
                        }
                    }
                }
                Kind::Answer(_) => {
                    if let Some(Slot { kind: Kind::Request(answers), .. }) = self.slot(slot.key.of & !ANSWER)
                    {
                        answers.retain(|answer| *answer != id);
                    }
                }
            }
        }
    }

    /// Whatever leads the kernel side to a template leads to the one behind it from now on.
    fn forget(&mut self, slot: &Slot, id: u32, now: BootNanos) {
        let Some(alike) = self.by_key.get_mut(&slot.key) else { return };
        let at = alike.iter().position(|other| *other == id);
        alike.retain(|other| *other != id);
        let before = at.and_then(|at| at.checked_sub(1)).and_then(|at| alike.get(at)).copied();
        match (before, alike.first().copied()) {
            (Some(before), _) => {
                if let Some(other) = self.slots.get_mut(before as usize).and_then(Option::as_mut) {
                    other.made.next = slot.made.next;
                    self.changes.push(Change::Put(TemplateId(before), other.made.clone()));
                }
            }
            (None, Some(first)) => self.changes.push(Change::Found(slot.key, TemplateId(first))),
            (None, None) => {
                self.by_key.remove(&slot.key);
                self.changes.push(Change::Lost(slot.key));
            }
        }
        self.changes.push(Change::Remove(TemplateId(id), slot.made.clone()));
        self.free.push((BootNanos(now.0.saturating_add(REST)), id));
    }
}

fn shared(exchange: &Exchange) -> Exchange {
    let mut exchange = exchange.clone();
    share(&mut exchange);
    exchange
}

/// Makes its texts such that are cheap to have again.
pub(super) fn share(exchange: &mut Exchange) {
    for (_, value) in &mut exchange.attributes {
        if let Value::Text(text) = value {
            *value = Value::Shared(std::mem::take(text).into());
        }
    }
}
