//! Samplers, as OpenTelemetry defines them (trace SDK, "Sampling"; "TraceState: Probability Sampling").
//!
//! ```text
//! ratio p       T = (1 - p) 2^56
//! randomness    R = the last 7 bytes of the trace id, or `rv` of the tracestate's member `ot`
//! sampled       R >= T; then `ot=th:` tells T, in hex without zeros at the end
//! ```

use descry_assemble::span::Span;
use descry_decode::ids::UnixNanos;

use crate::limit::RateLimit;
use crate::state;

/// W3C trace flag "sampled".
const SAMPLED: u8 = 1;
/// One more than the largest randomness: 2^56.
const RANDOMNESS: u64 = 1 << 56;

/// Whether a span is to be sent, after [`Sampling::begin`].
pub fn is_sampled(span: &Span) -> bool {
    span.flags & SAMPLED != 0
}

/// Notes that a span is not to be sent.
pub fn leave_out(span: &mut Span) {
    span.flags &= !SAMPLED;
}

/// What decides of traces that begin here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    On,
    Off,
    /// From this randomness on.
    From(u64),
}

/// A sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Whether the caller's decision counts, where there is one.
    parent_based: bool,
    root: Root,
}

/// A sampler that there is not.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// Its name means nothing.
    #[error(
        "there is no sampler {name:?}; use always_on, always_off, traceidratio, parentbased_always_on, \
         parentbased_always_off or parentbased_traceidratio"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Its argument means nothing.
    #[error("{text:?} is no share; write a number from 0 to 1")]
    Ratio {
        /// What was asked for.
        text: String,
    },
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self { parent_based: true, root: Root::On }
    }
}

impl Sampler {
    /// By what `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; an empty text counts as none.
    ///
    /// # Errors
    /// A name or an argument that means nothing.
    pub fn named(name: Option<&str>, argument: Option<&str>) -> Result<Self, SamplerError> {
        let given =
            |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(name) = given(name) else { return Ok(Self::default()) };
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => {
                let text = given(argument).unwrap_or_else(|| "1".to_owned());
                let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                from_ratio(ratio.ok_or(SamplerError::Ratio { text })?)
            }
            _ => return Err(SamplerError::Name { name }),
        };
        Ok(Self { parent_based, root })
    }

    /// Whether it decides by the trace id and not by what the caller said.
    fn decides(&self, span: &Span) -> bool {
        !(self.parent_based && span.parent.is_some())
    }

    fn takes(&self, span: &Span) -> bool {
        if !self.decides(span) {
            return is_sampled(span);
        }
        match self.root {
            Root::On => true,
            Root::Off => false,
            Root::From(threshold) => randomness(span) >= threshold,
        }
    }
}

fn from_ratio(ratio: f64) -> Root {
    // 2^56 and shares of it are exact enough: the specification asks for four hex digits or more.
    let threshold = ((1.0 - ratio) * RANDOMNESS as f64).round() as u64;
    if threshold >= RANDOMNESS { Root::Off } else { Root::From(threshold) }
}

fn randomness(span: &Span) -> u64 {
    let [.., a, b, c, d, e, f, g] = span.trace.0;
    state::explicit_randomness(&span.trace_state).unwrap_or(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
}

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SamplingCounters {
    /// Traces that the sampler left out where they began on this machine.
    pub traces_not_sampled: u64,
    /// Traces that were left out because their service began too many.
    pub traces_rate_limited: u64,
}

/// Decides of traces.
#[derive(Debug, Default)]
pub struct Sampling {
    sampler: Sampler,
    traces_per_second: u32,
    /// Of all services; none: no limit was asked for yet.
    limit: Option<RateLimit>,
    counters: SamplingCounters,
}

impl Sampling {
    /// By this sampler, and so many traces a second of a service at most (0: any number).
    pub fn new(sampler: Sampler, traces_per_second: u32) -> Self {
        Self { sampler, traces_per_second, limit: None, counters: SamplingCounters::default() }
    }

    /// Whether no trace is ever taken, whatever a caller says: what is only told below requests need not be measured.
    pub fn takes_none(&self) -> bool {
        !self.sampler.parent_based && self.sampler.root == Root::Off
    }

    /// The least randomness of which a trace is taken that begins here and carries no context; 2^56: none.
    pub fn first_taken(&self) -> u64 {
        match self.sampler.root {
            Root::On => 0,
            Root::Off => RANDOMNESS,
            Root::From(threshold) => threshold,
        }
    }

    /// Counts traces of which it was decided elsewhere, by [`Sampling::first_taken`], that they are not taken.
    pub fn left_out(&mut self, traces: u64) {
        self.counters.traces_not_sampled += traces;
    }

    /// Decides of a span that is the first of its trace here, and notes it in its flags: those below it inherit them.
    /// What the caller of a parent-based sampler decided counts against no limit. `traces_per_second`: the service's own, in
    /// the place of everybody's.
    pub fn begin(
        &mut self,
        span: &mut Span,
        traces_per_second: Option<u32>,
        service: impl FnOnce() -> String,
    ) {
        let mut takes = self.sampler.takes(span);
        if !takes {
            self.counters.traces_not_sampled += 1;
        } else if self.sampler.decides(span)
            && !self.is_within(traces_per_second.unwrap_or(self.traces_per_second), span.start, service)
        {
            self.counters.traces_rate_limited += 1;
            takes = false;
        }
        if !takes {
            leave_out(span);
            return;
        }
        span.flags |= SAMPLED;
        if let (Root::From(threshold), true) = (self.sampler.root, self.sampler.decides(span)) {
            span.trace_state = state::with_threshold(&span.trace_state, threshold).into();
        }
    }

    /// Whether one more trace is not one too many.
    fn is_within(&mut self, a_second: u32, now: UnixNanos, service: impl FnOnce() -> String) -> bool {
        if a_second == 0 {
            return true;
        }
        let limit = self.limit.get_or_insert_with(|| RateLimit::new(self.traces_per_second));
        limit.takes_at(&service(), a_second.into(), now)
    }

    /// Counters so far.
    pub fn counters(&self) -> SamplingCounters {
        self.counters
    }
}
