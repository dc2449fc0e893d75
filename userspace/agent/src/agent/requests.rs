//! Requests as the configuration wants them: of which protocols, under which routes, which of them sampled.

use std::sync::Arc;

use descry_abi::histogram::Histogram;
use descry_assemble::connection::Settings;
use descry_assemble::protocol::Options as ParserOptions;
use descry_assemble::span::Span;
use descry_config::{Config, RequestProtocol, Sampler, Switches};
use descry_export::send::MetricSettings;
use descry_export::span::SpanProcess;
use descry_pipeline::{Sampling, is_sampled};
use rustc_hash::FxHashMap;

use crate::decode::protocols;
use crate::failure::Failure;
use crate::measure::Clocks;
use crate::requests::{Metrics, Owned, Requests, SpanOutput, Terms, sampling};

/// Spans of the last event, and how many requests became none because their traces are not taken.
#[derive(Default)]
pub struct Done {
    spans: Vec<(Owned, Span)>,
    counted: u64,
}

impl Done {
    /// Takes them.
    pub fn take(&mut self) -> impl Iterator<Item = (Owned, Span)> {
        self.spans.drain(..)
    }

    /// Takes the number of requests that became none.
    pub fn take_counted(&mut self) -> u64 {
        std::mem::take(&mut self.counted)
    }
}

impl SpanOutput for Done {
    fn spans(&mut self, spans: &mut Vec<(Owned, Span)>) {
        self.spans.append(spans);
    }

    fn keeps(&self, span: &Span) -> bool {
        is_sampled(span)
    }

    fn counted(&mut self, _: &SpanProcess, _: &Span, durations: &Histogram) {
        self.counted += durations.count;
    }

    fn drained(&mut self, _: &mut Metrics) -> Result<(), Failure> {
        Ok(())
    }

    fn progress(&self) -> String {
        String::new()
    }
}

/// Which traces are sent.
///
/// # Errors
/// A sampler that there is not.
pub fn sampling_of(requests: &descry_config::Requests) -> anyhow::Result<Sampling> {
    let sampler = requests.sampler.map(Sampler::as_str);
    let ratio = requests.sampler_ratio.map(|ratio| ratio.0);
    sampling(sampler, ratio, requests.traces_per_second)
}

/// Begins to follow requests, if a configuration wants that.
///
/// # Errors
/// Settings that make no sense.
pub fn begin(config: &Config, began: Clocks) -> anyhow::Result<Option<Requests<Done>>> {
    let of_requests = &config.requests;
    if !of_requests.enabled {
        return Ok(None);
    }
    let sampling = sampling_of(of_requests)?;
    let settings = settings(&of_requests.routes, &[], began.boot_to_unix)?;
    let metrics = MetricSettings::from_env(|name| std::env::var(name).ok())?;
    let temporality = metrics.are_wanted.then_some(metrics.temporality);
    let metrics = Metrics::new(temporality, began.unix);
    let requests = Requests::new(settings, Some(sampling), metrics, Done::default());
    Ok(Some(requests.with_attributes(config.resource.attributes.clone())))
}

/// What is wanted of connections, by the protocols that rules name.
#[derive(Default)]
pub struct Wanted(FxHashMap<Vec<RequestProtocol>, Arc<Settings>>);

impl Wanted {
    /// By the rules of a configuration.
    ///
    /// # Errors
    /// Routes that are none.
    pub fn new(config: &Config, boot_to_unix: i64) -> anyhow::Result<Self> {
        let of_rules = config.rules.iter().map(|rule| &rule.protocols);
        let all = of_rules.chain([&config.others.protocols]).map(|protocols| {
            let settings = settings(&config.requests.routes, protocols, boot_to_unix)?;
            Ok((protocols.clone(), Arc::new(settings)))
        });
        Ok(Self(all.collect::<anyhow::Result<_>>()?))
    }

    /// What is wanted of the connections of a process with which that is done; none: nothing.
    pub fn of(&self, switches: &Switches) -> Option<Terms> {
        let settings = self.0.get(&switches.protocols).filter(|_| switches.requests)?;
        Some(Terms { settings: Arc::clone(settings), traces_per_second: switches.traces_per_second })
    }
}

/// What is wanted of connections in these protocols; none: in all.
fn settings(routes: &[String], of: &[RequestProtocol], boot_to_unix: i64) -> anyhow::Result<Settings> {
    let names: Vec<String> = of.iter().map(|protocol| protocol.as_str().to_owned()).collect();
    let protocols = protocols(&names).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let routes = routes.iter().map(|route| route.parse().map_err(anyhow::Error::from));
    let routes = Arc::new(routes.collect::<anyhow::Result<_>>()?);
    Ok(Settings { options: ParserOptions { routes }, protocols, unix_offset: boot_to_unix })
}

/// Whether routes of a configuration are some.
///
/// # Errors
/// The first one that is none.
pub fn check_routes(routes: &[String]) -> anyhow::Result<()> {
    settings(routes, &[], 0).map(drop)
}
