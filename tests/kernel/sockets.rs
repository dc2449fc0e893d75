//! Every way to move bytes on sockets: requests come out whole, and those after them too.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::{compile, machine};
use serde_json::Value;

use crate::requests::Report;

/// Ways whose bytes nobody can see: their requests are not there, the ones after them are.
const UNSEEN: [&str; 1] = ["ring"];

#[test]
fn every_way_to_move_bytes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check_every_way(Descry::new("requests")?)
}

/// Watches the workload, and checks the spans of both sides.
pub(crate) fn check_every_way(descry: Descry) -> Result<()> {
    let program = compile::native("socket_calls")?;
    // The ways that this kernel has.
    let output = Command::new(&program).output()?;
    ensure!(output.status.success(), "{program:?} alone: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let ways: Vec<&str> = said.lines().collect();
    ensure!(ways.len() >= 12, "only {ways:?}");
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let descry = descry.output(&file).args(["--", &*program.to_string_lossy()]);
    let outcome = descry.succeed()?;
    let report = Report::read(&outcome, &file)?;
    for kind in ["server", "client"] {
        let mut statuses: BTreeMap<&str, Vec<Option<u64>>> = BTreeMap::new();
        for span in report.spans.iter().filter(|span| span["kind"] == kind) {
            let path = span["attributes"]["url.path"].as_str().with_context(|| format!("no path: {span}"))?;
            statuses.entry(path).or_default().push(span["attributes"]["http.response.status_code"].as_u64());
        }
        for way in &ways {
            let (before, after) =
                (statuses.remove(&*format!("/{way}")), statuses.remove(&*format!("/{way}/after")));
            let expected = if UNSEEN.contains(way) { None } else { Some(vec![Some(200)]) };
            ensure!(before == expected, "{kind} /{way}: {before:?}\n{}", outcome.stderr);
            ensure!(after == Some(vec![Some(201)]), "{kind} /{way}/after: {after:?}\n{}", outcome.stderr);
        }
        // What was received for one connection at the end of a call on another.
        if ways.contains(&"ring") {
            let ring = statuses.remove("/beside/ring");
            let unseen = if kind == "server" { Some(202) } else { None };
            ensure!(ring == Some(vec![unseen]), "{kind} /beside/ring: {ring:?}");
            let read = statuses.remove("/beside/read");
            ensure!(read == Some(vec![Some(203)]), "{kind} /beside/read: {read:?}");
        }
        ensure!(statuses.is_empty(), "{kind} spans that nobody asked for: {statuses:?}");
    }
    // Nothing but what nobody can see, and what follows from that.
    let expected = ["messages_unseen", "resynchronized", "message_gap"];
    let lost = report.summary["lost"].as_object().context("no losses are told")?;
    ensure!(lost.keys().all(|name| expected.contains(&&**name)), "lost: {}", Value::from(lost.clone()));
    Ok(())
}

/// Its sockets are streams of IP that have not TCP's members.
#[test]
fn requests_over_mptcp() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let script = compile::script("mptcp.py");
    let command_line = [machine::tool("python3")?.as_os_str(), script.as_os_str(), "50".as_ref()];
    let outcome = Descry::new("requests")?.output(&file).args(["--"]).args(command_line).succeed()?;
    let report = Report::read(&outcome, &file)?;
    for kind in ["server", "client"] {
        let spans = report.of(kind, "GET /items/{id}").count();
        ensure!(spans == 50, "{spans} spans {kind}; there are\n{}", report.names());
    }
    let lost = &report.summary["lost"];
    ensure!(*lost == serde_json::json!({}), "lost: {lost}\n{}", outcome.stderr);
    Ok(())
}
