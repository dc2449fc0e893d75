//! What the agent tells of the inside of requests: calls of functions that its configuration names, slow system calls and
//! long waits.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::Agent;
use super::receiver::{Receiver, Seen};
use super::signals::{config, shop, spans, text};

const NAMES: &str = "['shop:shop::Shop::search', 'shop:shop::rank', 'shop:shop::Shop::report', \
                     'shop:shop::Customer::get', 'shop:no::such::function']";

fn of_shop_only(names: &str) -> String {
    format!(
        "logs: {{enabled: false}}\nrules: [{{comm: shop}}]\nothers: {{requests: false, functions: false}}\n\
         functions: {{names: {names}, spans_per_second: 100000}}"
    )
}

fn is_call(span: &&&Span, name: &str) -> bool {
    span.kind() == SpanKind::Internal && span.name == name
}

/// Has the shop asked so often, and waits for the spans of all that it then served.
fn serve(receiver: &Receiver, requests: u32, served: usize) -> Result<()> {
    shop(requests)?;
    eventually("all spans of the shop", || {
        let seen = receiver.seen();
        let servers = spans(&seen, "shop").iter().filter(|it| it.kind() == SpanKind::Server).count();
        Ok((servers >= served).then_some(()))
    })
}

/// The span that one lies below, in its trace.
fn parent_of<'a>(span: &Span, all: &[&'a Span]) -> Result<&'a Span> {
    let is_parent = |it: &&&Span| it.span_id == span.parent_span_id && it.trace_id == span.trace_id;
    all.iter().find(is_parent).copied().with_context(|| format!("no parent of {span:?}"))
}

/// How often each function was called, by the last that was told of each process.
fn calls(seen: &Seen) -> Result<BTreeMap<String, u64>> {
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    for metrics in seen.metrics.iter().flat_map(|request| &request.resource_metrics) {
        let resource = metrics.resource.as_ref().context("no Resource")?;
        let of_scopes = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        for metric in of_scopes.filter(|metric| metric.name == "descry.function.duration") {
            let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { continue };
            for point in &histogram.data_points {
                let name = text(&point.attributes, "code.function.name").to_owned();
                ensure!(text(&point.attributes, "descry.function.file").ends_with("/shop"), "{point:?}");
                last.insert((format!("{:?}", resource.attributes), name), point.count);
            }
        }
    }
    let mut all = BTreeMap::new();
    for ((_, name), count) in last {
        *all.entry(name).or_default() += count;
    }
    Ok(all)
}

#[test]
fn calls_hang_under_the_request_that_they_were_made_for() -> Result<()> {
    /// Requests that may have begun before the first probe, or were open at the end.
    const EDGES: usize = 4;
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let running = Workload::rust("shop", &[])?;
    let agent = Agent::start(&config(&receiver, &of_shop_only(NAMES)))?;
    eventually("the shop's calls", || {
        let seen = receiver.seen();
        Ok((spans(&seen, "shop").iter().filter(|it| is_call(it, "shop::Shop::report")).count() > 20)
            .then_some(()))
    })?;
    drop(running);
    let (_, said) = agent.end()?;
    ensure!(said.contains("no function fits `shop:no::such::function`"), "the agent said:\n{said}");

    let seen = receiver.seen();
    let all = spans(&seen, "shop");
    let children = |parent: &Span| -> Vec<&Span> {
        let of_parent = all.iter().filter(|it| it.parent_span_id == parent.span_id);
        of_parent.copied().filter(|it| it.trace_id == parent.trace_id).collect()
    };
    for (page, function, inner) in [
        ("/search", "shop::Shop::search", "shop::rank"),
        ("/report", "shop::Shop::report", "shop::Customer::get"),
    ] {
        let is_of_page =
            |it: &&&Span| it.kind() == SpanKind::Server && text(&it.attributes, "url.path").starts_with(page);
        let mut served: Vec<&&Span> = all.iter().filter(is_of_page).collect();
        served.sort_by_key(|it| it.start_time_unix_nano);
        ensure!(served.len() > 2 * EDGES, "{} of {page}", served.len());
        for server in served.iter().take(served.len() - EDGES).skip(EDGES) {
            let below = children(server);
            let calls: Vec<&&Span> = below.iter().filter(|it| is_call(it, function)).collect();
            let [call] = calls.as_slice() else { anyhow::bail!("{page} has {below:?}") };
            let lies_within = server.start_time_unix_nano <= call.start_time_unix_nano
                && call.end_time_unix_nano <= server.end_time_unix_nano;
            ensure!(lies_within, "{call:?} in {server:?}");
            let deeper = children(call);
            ensure!(deeper.iter().filter(|it| is_call(it, inner)).count() == 1, "{function} has {deeper:?}");
        }
    }
    // What the customer calls is made for no request.
    let alone = all.iter().filter(|it| is_call(it, "shop::Customer::get") && it.parent_span_id.is_empty());
    ensure!(alone.count() > 40, "the customer's own calls");

    let counted = calls(&seen)?;
    for (function, count) in &counted {
        let made = all.iter().filter(|it| is_call(it, function)).count() as u64;
        ensure!(made == *count, "{count} calls of {function}, {made} spans");
    }
    ensure!(counted.len() == 4, "{counted:?}");
    Ok(())
}

#[test]
fn calls_of_processes_that_come_later_are_counted_whatever_the_rate() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let names = "['shop:shop::Shop::search']";
    let settings = of_shop_only(names).replace("spans_per_second: 100000", "spans_per_second: 2");
    let agent = Agent::start(&config(&receiver, &settings))?;
    let first = Workload::rust("shop", &[])?;
    eventually("a call", || {
        let seen = receiver.seen();
        Ok(spans(&seen, "shop").iter().any(|it| is_call(&it, "shop::Shop::search")).then_some(()))
    })?;
    drop(first);
    let search = |seen: &Seen| Ok::<_, anyhow::Error>(calls(seen)?.remove("shop::Shop::search").unwrap_or(0));
    // Its last window.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = search(&receiver.seen())?;
    // Ten of the customer's, and one for each of ten reports.
    shop(40)?;
    agent.end()?;
    let seen = receiver.seen();
    let after = search(&seen)?;
    ensure!(before > 0 && after == before + 20, "{before} calls, then {after}");
    let made = spans(&seen, "shop").iter().filter(|it| is_call(it, "shop::Shop::search")).count() as u64;
    ensure!(0 < made && made < after, "{made} spans of {after} calls");
    Ok(())
}

#[test]
fn slow_system_calls_hang_under_the_request_that_they_were_made_for() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(
        &receiver,
        "logs: {enabled: false}\nrules: [{comm: shop}]\nothers: {requests: false, syscalls: false}\n\
         syscalls: {enabled: true, slower_than: 25ms}",
    ))?;
    serve(&receiver, 80, 100)?;
    agent.end()?;
    let seen = receiver.seen();
    let all = spans(&seen, "shop");
    let slow: Vec<&&Span> = all.iter().filter(|it| it.kind() == SpanKind::Internal).collect();
    for call in &slow {
        let parent = parent_of(call, &all)?;
        ensure!(parent.kind() == SpanKind::Server, "{call:?} under {parent:?}");
    }
    // Each of 20 reports sleeps 30 ms. The customer and the waiter wait as long for each other, for no request.
    let naps = slow.iter().filter(|it| it.name == "clock_nanosleep");
    let of_reports = naps.filter(|it| {
        let parent = all.iter().find(|parent| parent.span_id == it.parent_span_id);
        parent.is_some_and(|parent| text(&parent.attributes, "url.path") == "/report")
            && (30_000_000..60_000_000).contains(&(it.end_time_unix_nano - it.start_time_unix_nano))
    });
    ensure!(of_reports.count() == 20, "slow calls: {slow:?}");
    Ok(())
}

#[test]
fn long_waits_hang_under_the_request_that_they_were_made_for() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(
        &receiver,
        "logs: {enabled: false}\nrules: [{comm: shop}]\nothers: {requests: false, off_cpu: false}\n\
         off_cpu: {enabled: true, longer_than: 1ms}",
    ))?;
    serve(&receiver, 160, 200)?;
    let told = agent.metric("descry_kernel_request_waits_total", "")?;
    agent.end()?;
    let seen = receiver.seen();
    let all = spans(&seen, "shop");
    // Path of the request, reason, how long.
    let mut waits: Vec<(&str, &str, u64)> = Vec::new();
    for wait in all.iter().filter(|it| it.kind() == SpanKind::Internal) {
        let parent = parent_of(wait, &all)?;
        let serves = parent.start_time_unix_nano..=parent.end_time_unix_nano;
        ensure!(parent.kind() == SpanKind::Server && serves.contains(&wait.start_time_unix_nano), "{wait:?}");
        ensure!(text(&wait.attributes, "thread.name") == "waiter", "{wait:?}");
        let reason = text(&wait.attributes, "descry.off_cpu.reason");
        ensure!(wait.name == format!("wait: {reason}"), "{wait:?}");
        let duration = wait.end_time_unix_nano - wait.start_time_unix_nano;
        waits.push((text(&parent.attributes, "url.path"), reason, duration));
    }
    let of = |path: &str, reason: &str, least: u64, most: u64| {
        let fits = |wait: &&(&str, &str, u64)| {
            wait.0.starts_with(path) && wait.1 == reason && (least..most).contains(&(wait.2 / 1_000_000))
        };
        waits.iter().filter(fits).count()
    };
    // Each of 40 reports sleeps 30 ms. Of 40 checkouts some come while the clerk holds the lock, 5 ms long.
    ensure!(of("/report", "sleep", 30, 60) == 40, "{waits:?}");
    ensure!(of("", "sleep", 0, 1_000_000) == 40, "{waits:?}");
    let locks = of("", "lock", 1, 12);
    ensure!((4..=40).contains(&locks) && of("/checkout/", "lock", 1, 12) == locks, "{waits:?}");
    // Those between the requests are of none.
    ensure!(told as usize >= waits.len(), "{told} were told");
    Ok(())
}

/// Where no trace is ever taken, the kernel side sends nothing of what would hang below one; metrics count everything.
#[test]
fn nothing_is_sent_of_parts_of_traces_that_nobody_takes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(
        &receiver,
        "logs: {enabled: false}\nrules: [{comm: shop}]\nothers: {requests: false, off_cpu: false, syscalls: false}\n\
         requests: {sampler: always_off}\nfunctions: {names: ['shop:shop::Shop::search']}\n\
         off_cpu: {enabled: true, longer_than: 1ms}\nsyscalls: {enabled: true, slower_than: 25ms}",
    ))?;
    shop(40)?;
    // 40 of the customer's, and a search for each of ten reports; of server and client.
    agent.until("descry_requests_trace_not_sampled_total", "", 50)?;
    for name in ["request_waits", "syscall_slow"] {
        let sent = agent.metric(&format!("descry_kernel_{name}_total"), "")?;
        ensure!(sent == 0, "{sent} {name}");
    }
    agent.end()?;
    let seen = receiver.seen();
    let spans = spans(&seen, "shop");
    ensure!(spans.is_empty(), "{spans:?}");
    // Ten of the customer's searches, and one for each of ten reports; the first may come before the probes are there.
    let searches = calls(&seen)?.remove("shop::Shop::search").unwrap_or(0);
    ensure!((5..=20).contains(&searches), "{searches} searches");
    Ok(())
}
