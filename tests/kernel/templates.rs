//! Requests that come again and again: the kernel side tells them in short, or counts them, and nobody sees a difference.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome};
use descry_tests::machine;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::requests::{Report, milliseconds};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A server that answers as each path asks it to: `/STATUS/LENGTH/MILLISECONDS`, with a date that is always another. It
/// lives as long as the process.
fn server() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream).ok());
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    for date in 0_u64.. {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            break;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            if name == "Content-Length" {
                length = value.parse()?;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let words = first.split(' ').nth(1).context("no path")?.split('/').skip(1);
        let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [status, length, wait] = numbers.as_slice() else { break };
        sleep(Duration::from_millis(*wait));
        let body = "x".repeat(usize::try_from(*length)?);
        let head = format!("HTTP/1.1 {status} X\r\nDate: {date:029}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// A client on one connection.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.write_all(text.as_bytes())?)
    }

    /// Reads an answer in one piece, as most clients do.
    fn receive(&mut self) -> Result<String> {
        let mut bytes = vec![0; 16 << 10];
        let length = self.0.read(&mut bytes)?;
        bytes.truncate(length);
        Ok(String::from_utf8(bytes)?)
    }

    fn get(&mut self, path: &str, more: &str) -> Result<String> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n"))?;
        self.receive()
    }

    pub(crate) fn ask(&mut self, text: &str) -> Result<String> {
        self.send(text)?;
        self.receive()
    }
}

/// What `descry requests` says of this process while `drive` runs.
pub(crate) fn watched(more: &[&str], drive: impl FnOnce() -> Result<()>) -> Result<(Report, Outcome)> {
    watched_as(&[], more, drive)
}

/// The same in an environment.
pub(crate) fn watched_as(
    environment: &[(&str, &str)],
    more: &[&str],
    drive: impl FnOnce() -> Result<()>,
) -> Result<(Report, Outcome)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let descry = Descry::new("requests")?.pid(std::process::id()).args(["-d", "5m", "--stats", "json"]);
    let descry = environment.iter().fold(descry, |descry, (name, value)| descry.env(name, value));
    let mut descry = descry.args(more).output(&file).spawn()?;
    descry.watching_sockets()?;
    drive()?;
    sleep(Duration::from_millis(300));
    descry.signal(Signal::SIGINT)?;
    let outcome = descry.wait()?;
    ensure!(outcome.code == Some(0), "descry ended with {:?}:\n{}", outcome.code, outcome.stderr);
    let report = Report::read(&outcome, &file)?;
    ensure!(report.summary["lost"] == serde_json::json!({}), "lost: {}", report.summary["lost"]);
    Ok((report, outcome))
}

/// Spans on this port by kind, path or operation, status or database.
fn counts(report: &Report, port: u16) -> BTreeMap<(String, String, String), usize> {
    let mut counts = BTreeMap::new();
    for span in &report.spans {
        let attributes = &span["attributes"];
        if attributes["server.port"] != port {
            continue;
        }
        let text = |names: [&str; 2]| {
            let value = names.iter().map(|name| &attributes[*name]).find(|value| !value.is_null());
            value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let kind = span["kind"].as_str().unwrap_or_default().to_owned();
        let what = text(["url.path", "db.operation.name"]).or_else(|| text(["url.full", "url.full"]));
        let how = text(["http.response.status_code", "db.namespace"]);
        *counts.entry((kind, what.unwrap_or_default(), how.unwrap_or_default())).or_default() += 1;
    }
    counts
}

fn check_counts(
    found: &BTreeMap<(String, String, String), usize>,
    kind: &str,
    expected: &[(&str, &str, usize)],
) -> Result<()> {
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(what, how, count)| ((kind.to_owned(), (*what).to_owned(), (*how).to_owned()), *count))
        .collect();
    let found: BTreeMap<_, _> =
        found.iter().filter(|((of, _, _), _)| of == kind).map(|(key, count)| (key.clone(), *count)).collect();
    ensure!(found == expected, "{kind}: {found:?} instead of {expected:?}");
    Ok(())
}

#[test]
fn requests_that_come_again_are_told_as_others_are() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let port = server()?;
    let traceparent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n");
    let post = |body: &str| format!("POST /201/0/0 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{body}");
    let (report, _) = watched(&[], || {
        let mut client = Client::connect(port)?;
        for round in 0..300 {
            client.get("/200/5/0", "")?;
            client.get("/404/10/0", "")?;
            // Of another length each, and long ones.
            client.get(&format!("/200/{round:05}/0"), "")?;
            client.get("/200/9000/0", "")?;
            client.ask(&post(&format!("{round:04}")))?;
            if round % 3 == 0 {
                // Only the context differs, and the request before it equals one that was seen often.
                client.get("/200/5/0", &traceparent)?;
            }
        }
        // Two at once: nothing of the kind was seen before.
        for _ in 0..20 {
            let two = "GET /200/5/0 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
            client.send(&two)?;
            let mut said = String::new();
            while said.matches("xxxxx").count() < 2 {
                said += &client.receive()?;
            }
        }
        Ok(())
    })?;
    let found = counts(&report, port);
    let mut expected = vec![("/404/10/0", "404", 300), ("/200/9000/0", "200", 300), ("/201/0/0", "201", 300)];
    let lengths: Vec<String> = (0..300).map(|round| format!("/200/{round:05}/0")).collect();
    expected.extend(lengths.iter().map(|path| (path.as_str(), "200", 1)));
    expected.push(("/200/5/0", "200", 300 + 100 + 40));
    check_counts(&found, "server", &expected)?;
    let of_trace = report.spans.iter().filter(|span| span["trace_id"] == TRACE && span["kind"] == "server");
    ensure!(of_trace.count() == 100, "traces that clients began are joined");
    for span in &report.spans {
        ensure!(span["attributes"]["descry.unanswered"].is_null(), "unanswered: {span}");
        ensure!(milliseconds(span) < 1000.0, "too long: {span}");
    }
    Ok(())
}

#[test]
fn the_database_of_a_command_is_the_one_that_was_selected() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let server = crate::servers::start_redis(dir.path())?;
    let command = |words: &[&str]| {
        let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        words
    };
    let command = |words: &[&str]| format!("*{}\r\n{}", words.len(), command(words));
    let (report, _) = watched(&[], || {
        let mut client = Client::connect(server.port())?;
        for database in ["0", "1", "7", "1"] {
            if database != "0" {
                client.ask(&command(&["SELECT", database]))?;
            }
            for round in 0..200 {
                client.ask(&command(&["SET", &format!("key:{round:03}"), "value"]))?;
                client.ask(&command(&["GET", &format!("key:{round:03}")]))?;
                client.ask(&command(&["INCR", "number"]))?;
                if round % 4 == 0 {
                    client.ask(&command(&["INCR", "key:000"]))?;
                }
            }
        }
        Ok(())
    })?;
    let found = counts(&report, server.port());
    let mut expected = vec![("SELECT", "1", 2), ("SELECT", "7", 1)];
    for (database, times) in [("0", 1), ("1", 2), ("7", 1)] {
        expected.extend([("SET", database, 200 * times), ("GET", database, 200 * times)]);
        expected.push(("INCR", database, 250 * times));
    }
    check_counts(&found, "client", &expected)?;
    let failed = report.of("client", "INCR").filter(|span| span["status"] == "error").count();
    ensure!(failed == 200, "{failed} INCR of a text failed");
    Ok(())
}

#[test]
fn an_answer_that_does_not_come_is_missed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let asks = "GET /200/5/0 HTTP/1.1\r\nHost: a\r\n\r\n";
    // A server that has no answer any more.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = listener.local_addr()?.port();
    let mut open = None;
    let (report, _) = watched(&["--timeout", "3s"], || {
        let mut served = Vec::new();
        let mut connect = || -> Result<(Client, TcpStream)> {
            let mut client = Client::connect(silent)?;
            let (mut stream, _) = listener.accept()?;
            for _ in 0..100 {
                client.send(asks)?;
                ensure!(stream.read(&mut [0; 1024])? > 0, "the client is gone");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
                client.receive()?;
            }
            served.push(stream.try_clone()?);
            Ok((client, stream))
        };
        let (mut patient, mut left) = connect()?;
        let (mut hasty, _stays) = connect()?;
        let (mut last, _stays_too) = connect()?;
        patient.send(asks)?;
        ensure!(left.read(&mut [0; 1024])? > 0, "the client is gone");
        hasty.send(asks)?;
        sleep(Duration::from_millis(300));
        drop(hasty);
        // The time that is waited for an answer is over; then it comes.
        sleep(Duration::from_millis(8500));
        left.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
        patient.receive()?;
        // One is open at the end.
        last.send(asks)?;
        open = Some((last, served));
        Ok(())
    })?;
    drop(open);
    let why = |span: &Value| span["attributes"]["descry.unanswered"].as_str().map(str::to_owned);
    let spans = report.spans.iter().filter(|span| span["kind"] == "client");
    let spans: Vec<&Value> = spans.filter(|span| span["attributes"]["server.port"] == silent).collect();
    let mut reasons: Vec<String> = spans.iter().filter_map(|span| why(span)).collect();
    reasons.sort();
    ensure!(reasons == ["closed_by_client", "timeout", "unknown"], "{reasons:?}\n{}", report.names());
    ensure!(spans.len() == 303, "{} spans\n{}", spans.len(), report.names());
    let timed_out = spans.iter().find(|span| why(span).as_deref() == Some("timeout")).context("none")?;
    ensure!((2500.0..9000.0).contains(&milliseconds(timed_out)), "{timed_out}");
    Ok(())
}
