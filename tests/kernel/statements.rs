//! Statements of PostgreSQL that come again: whatever a name stood for when it was used is what is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};
use descry_tests::machine;
use serde_json::Value;

use crate::requests::Report;
use crate::templates::watched;

const ROUNDS: usize = 200;

/// A client of PostgreSQL that says what it is told to, and reads up to `ReadyForQuery`.
struct Client(TcpStream);

/// A message: its type, and its body behind the length.
fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"])
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"])
}

/// `Bind` to one value, `Execute`.
fn execute(name: &str, value: &str) -> Vec<u8> {
    let length = (value.len() as u32).to_be_bytes();
    let bind = message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\x01", &length, value.as_bytes(), b"\0\0"]);
    [bind, message(b'E', &[&[0; 5]])].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut client = Self(stream);
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = (startup.len() as u32 + 4).to_be_bytes();
        client.ask(&[&[&length[..], startup].concat()])?;
        Ok(client)
    }

    fn ask(&mut self, messages: &[&[u8]]) -> Result<()> {
        self.0.write_all(&messages.concat())?;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while !matches!(bytes.as_slice(), [.., b'Z', 0, 0, 0, 5, _]) {
            let length = self.0.read(&mut part)?;
            ensure!(length > 0, "the server is gone");
            bytes.extend(part.iter().take(length));
        }
        Ok(())
    }
}

/// Statements by their text and the code of their failure.
fn told(report: &Report) -> BTreeMap<(String, String), usize> {
    let mut told = BTreeMap::new();
    for span in report.spans.iter().filter(|span| span["kind"] == "client") {
        let text = |name: &str| span["attributes"][name].as_str().unwrap_or_default().to_owned();
        *told.entry((text("db.query.text"), text("db.response.status_code"))).or_default() += 1;
    }
    told
}

const UPPER: &str = "SELECT upper($1)";
const LOWER: &str = "SELECT lower($1)";
const INITCAP: &str = "SELECT initcap($1)";

/// What is asked; how often each statement is, with each code of a failure.
fn ask(port: u16) -> Result<Vec<(&'static str, &'static str, usize)>> {
    let (mut one, mut other) = (Client::connect(port)?, Client::connect(port)?);
    // One name, and on each connection another statement.
    one.ask(&[&parse("S_1", UPPER), &sync()])?;
    other.ask(&[&parse("S_1", LOWER), &sync()])?;
    for round in 0..ROUNDS {
        let value = format!("{round:05}");
        one.ask(&[&query(&format!("SELECT 1000 / {:03}", round % 10))])?;
        one.ask(&[&query(&format!("SELECT 1000 - {round:03}"))])?;
        // Another text that begins with the same words and is as long.
        one.ask(&[&query(&format!("SELECT 1000 % {:03}", round + 1))])?;
        for client in [&mut one, &mut other] {
            client.ask(&[&execute("S_1", &value), &sync()])?;
        }
        // What has no name is made anew, for one request and for two.
        one.ask(&[&parse("", UPPER), &execute("", &value), &sync()])?;
        one.ask(&[&parse("", INITCAP), &execute("", &value), &sync()])?;
        other.ask(&[&parse("", INITCAP), &sync()])?;
        other.ask(&[&execute("", &value), &sync()])?;
    }
    // The name stands for something else now.
    let close = message(b'C', &[b"SS_1\0"]);
    one.ask(&[&close, &parse("S_1", LOWER), &sync()])?;
    for round in 0..ROUNDS {
        one.ask(&[&execute("S_1", &format!("{round:05}")), &sync()])?;
    }
    let failed = ROUNDS / 10;
    Ok(vec![
        ("SELECT ? / ?", "", ROUNDS - failed),
        ("SELECT ? / ?", "22012", failed),
        ("SELECT ? - ?", "", ROUNDS),
        ("SELECT ? % ?", "", ROUNDS),
        (UPPER, "", 2 * ROUNDS),
        (LOWER, "", 2 * ROUNDS),
        (INITCAP, "", 2 * ROUNDS),
    ])
}

#[test]
fn a_statement_is_the_one_that_its_name_stands_for() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let server = crate::servers::start_postgres(dir.path())?;
    let mut expected = Vec::new();
    let (report, _) = watched(&[], || {
        expected = ask(server.port())?;
        Ok(())
    })?;
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(text, code, count)| ((text.to_string(), code.to_string()), *count)).collect();
    let found = told(&report);
    ensure!(found == expected, "{found:#?} instead of {expected:#?}");
    let untold = report.spans.iter().find(|span| !span["attributes"]["descry.unanswered"].is_null());
    ensure!(untold.is_none(), "{untold:?}");
    Ok(())
}

#[test]
fn statements_that_are_only_counted_are_all_counted() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let server = crate::servers::start_postgres(dir.path())?;
    let mut expected = 0;
    let (report, _) = crate::templates::watched_as(&[("OTEL_TRACES_SAMPLER", "always_off")], &[], || {
        expected = ask(server.port())?.iter().map(|(_, _, count)| *count as u64).sum();
        Ok(())
    })?;
    ensure!(report.spans.is_empty(), "{}", report.names());
    let rows = report.summary["operations"].as_array().cloned().unwrap_or_default();
    let counts = rows.iter().filter(|row| row["kind"] == "client");
    let counted: u64 = counts.filter_map(|row| row["count"].as_u64()).sum();
    ensure!(counted == expected, "{counted} of {expected}: {}", Value::from(rows));
    Ok(())
}
