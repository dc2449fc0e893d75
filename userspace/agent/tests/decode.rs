//! `descry decode` as a user runs it: real captures (nginx, grpcio and websockets on loopback, by tcpdump) to spans.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/decode").join(name)
}

fn decode(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_descry")).arg("decode").args(arguments).output();
    output.expect("descry can be run")
}

/// JSON lines of a capture; `UPDATE_GOLDEN=1` writes them anew.
fn check(name: &str) -> String {
    let capture = golden(name);
    let output = decode(&["--format", "json", &capture.to_string_lossy()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8(output.stdout).expect("JSON is text");
    let expected = golden(&format!("{name}.jsonl"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected, &found).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(expected).expect("there is a golden file");
    // By lines, so that a failure shows the first that differs.
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
    found
}

/// Names and statuses of all spans, without ids and times.
fn requests(lines: &str) -> Vec<String> {
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("lines are JSON");
    let lines = lines.lines().map(value).filter(|line| line["type"] == "span");
    let mut requests: Vec<String> =
        lines.map(|line| format!("{} {} {}", line["name"], line["status"], line["attributes"])).collect();
    requests.sort();
    requests
}

#[test]
fn http1() {
    check("http1.pcap");
}

#[test]
fn http2_of_any_interface() {
    check("http2-sll2.pcapng");
}

#[test]
fn grpc() {
    check("grpc.pcap");
}

#[test]
fn grpc_that_is_older_than_the_capture() {
    check("grpc-late.pcap");
}

#[test]
fn websocket() {
    check("websocket.pcap");
}

#[test]
fn packets_that_are_cut() {
    check("snaplen.pcap");
}

#[test]
fn packets_in_the_wrong_order_and_twice() {
    let shuffled = check("http1-shuffled.pcap");
    let straight = check("http1.pcap");
    assert_eq!(requests(&shuffled), requests(&straight));
}

#[test]
fn lost_packets_give_no_wrong_request() {
    let whole = std::fs::read(golden("http1.pcap")).expect("there is a capture");
    let all = requests(&check("http1.pcap"));
    let statuses = |request: &String| request.split("http.response.status_code").nth(1).map(str::to_owned);
    let packets = packets(&whole);
    for lost in 0..packets.len() {
        let mut capture = whole[..HEADER].to_vec();
        for (_, packet) in packets.iter().enumerate().filter(|(index, _)| *index != lost) {
            capture.extend_from_slice(packet);
        }
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), capture).expect("a temporary file can be written");
        let output = decode(&["--format", "json", &file.path().to_string_lossy()]);
        assert!(output.status.success());
        let found = requests(&String::from_utf8_lossy(&output.stdout));
        // One packet holds at most the three requests of the pipeline, or their answers.
        assert!(found.len() + 3 >= all.len() && found.len() <= all.len(), "{lost}: {found:?}");
        for request in &found {
            let (path, status) = (path(request), statuses(request));
            let known = all.iter().any(|other| self::path(other) == path && statuses(other) == status);
            assert!(known || status.is_none(), "{lost}: {request}");
        }
    }
}

/// Bytes before the first packet of a pcap file.
const HEADER: usize = 24;

/// Each packet of a pcap file with its header.
fn packets(file: &[u8]) -> Vec<&[u8]> {
    let (mut packets, mut rest) = (Vec::new(), &file[HEADER..]);
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let (packet, behind) = rest.split_at(16 + length);
        packets.push(packet);
        rest = behind;
    }
    packets
}

fn path(request: &str) -> Option<&str> {
    request.split("\"url.path\":").nth(1)?.split(',').next()
}

#[test]
fn text_has_a_line_a_request_and_a_table() {
    let output = decode(&["--route", "/users/{name}", &golden("http1.pcap").to_string_lossy()]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("GET /users/{name}  ")).count(), 6, "{text}");
    assert!(lines.iter().any(|line| line.trim_start().starts_with("count")), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("16 requests, "));
    // What users asked for stays with them.
    assert!(!text.contains("secret"));
}

#[test]
fn one_protocol_alone() {
    let only = |name: &str| {
        decode(&["--protocol", name, "--format", "json", &golden("grpc.pcap").to_string_lossy()])
    };
    assert_eq!(String::from_utf8_lossy(&only("http2").stdout).lines().count(), 10);
    assert_eq!(String::from_utf8_lossy(&only("http").stdout).lines().count(), 1);
    let unknown = only("smtp");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are: "));
}

#[test]
fn files_that_are_no_captures_or_broken() {
    let failed = |bytes: &[u8], reason: &str| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("a temporary file can be written");
        let output = decode(&["--format", "json", &file.path().to_string_lossy()]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(reason), "{stderr}");
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert_eq!(failed(b"", "no pcap"), 0);
    assert_eq!(failed(b"GET / HTTP/1.1\r\n\r\n", "no pcap"), 0);
    for name in ["http1.pcap", "http2-sll2.pcapng"] {
        let whole = std::fs::read(golden(name)).expect("there is a capture");
        // What came before the cut is still told.
        assert!(failed(&whole[..whole.len() - 5], "ends in the middle") > 5);
        for cut in (HEADER + 1..whole.len()).step_by(997) {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), &whole[..cut]).expect("a temporary file can be written");
            let output = decode(&["--format", "json", &file.path().to_string_lossy()]);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{name} cut at {cut}");
        }
    }
    assert_eq!(decode(&["/does/not/exist"]).status.code(), Some(1));
    assert_eq!(decode(&[]).status.code(), Some(2));
}
