use descry_abi::template::{ANSWER, MAX_TEMPLATES};
use descry_decode::ids::{BootNanos, TemplateId};

use super::{Change, Made, Shape, Templates, equals};
use crate::infer::Transport;
use crate::protocol::tests::{line, to_client, to_server};
use crate::protocol::{Exchange, Options, http1, redis};
use crate::{infer::Protocol, template::Seen};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";

fn ok(date: u32) -> String {
    format!("HTTP/1.1 200 OK\r\nDate: {date:029}\r\nContent-Length: 5\r\n\r\nhello")
}

/// What a parser makes of a request and its answer.
fn parse(protocol: &Protocol, request: &str, answer: &str) -> Exchange {
    let mut parser = (protocol.parser)(Transport::Stream, &Options::default());
    let mut exchanges = Vec::new();
    parser.data(to_server(1, request), &mut exchanges);
    parser.data(to_client(2, answer), &mut exchanges);
    assert_eq!(exchanges.len(), 1);
    exchanges.remove(0)
}

fn learn(templates: &mut Templates, protocol: &Protocol, request: &str, answer: &str, state: u64, now: u64) {
    let exchange = parse(protocol, request, answer);
    let seen = Seen {
        request: request.as_bytes(),
        answer: answer.as_bytes(),
        answer_len: answer.len() as u64,
        state,
        exchange: &exchange,
        now: BootNanos(now),
    };
    templates.learn(protocol.shapes.unwrap(), &seen);
}

/// Numbers that were put, and how many were removed.
fn changes(templates: &mut Templates) -> (Vec<u32>, usize) {
    let changes = templates.take_changes();
    let put = changes.iter().filter_map(|change| match change {
        Change::Put(id, ..) => Some(id.0),
        _ => None,
    });
    let removed = changes.iter().filter(|change| matches!(change, Change::Remove(..)));
    (put.collect(), removed.count())
}

#[test]
fn what_is_seen_often_becomes_a_template() {
    let mut templates = Templates::default();
    for number in 0..3 {
        learn(&mut templates, &http1::PROTOCOL, GET, &ok(number), 0, 5);
        assert_eq!(changes(&mut templates), (vec![], 0));
    }
    learn(&mut templates, &http1::PROTOCOL, GET, &ok(3), 0, 5);
    assert_eq!(changes(&mut templates), (vec![1], 0));
    for number in 0..3 {
        learn(&mut templates, &http1::PROTOCOL, GET, &ok(number), 0, 5);
    }
    assert_eq!(changes(&mut templates), (vec![2], 0));
    // Answers with another status are others.
    for _ in 0..4 {
        learn(&mut templates, &http1::PROTOCOL, GET, &ok(0).replace("200 OK", "404 No"), 0, 5);
    }
    assert_eq!(changes(&mut templates), (vec![3], 0));
    assert_eq!(templates.request(TemplateId(1), BootNanos(6)), Some(GET.as_bytes()));
    let exchange = templates.exchange(TemplateId(3), 0, BootNanos(6)).unwrap();
    assert_eq!(exchange.attributes, {
        let mut expected = parse(&http1::PROTOCOL, GET, &ok(0).replace("200 OK", "404 No"));
        super::store::share(&mut expected);
        expected.attributes
    });
    assert!(
        templates.exchange(TemplateId(2), 1, BootNanos(6)).is_none(),
        "another state is another exchange"
    );
}

#[test]
fn trace_context_never_becomes_one() {
    let mut templates = Templates::default();
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = format!("GET /a HTTP/1.1\r\ntraceparent: {context}\r\n\r\n");
    for _ in 0..20 {
        learn(&mut templates, &http1::PROTOCOL, &request, &ok(0), 0, 5);
    }
    assert_eq!(changes(&mut templates), (vec![], 0));
}

#[test]
fn a_message_equals_a_template_where_the_parser_says_the_same() {
    let set = |key: &str, value: &str| format!("*3\r\n$3\r\nSET\r\n$5\r\n{key}\r\n$3\r\n{value}\r\n");
    let shapes = redis::PROTOCOL.shapes.unwrap();
    let first = set("key:1", "abc");
    let shape = (shapes.request)(first.as_bytes()).unwrap();
    let made = |text: &str, shape: &Shape| {
        Made::new(shapes.family.number.into(), 2, text.as_bytes(), text.len() as u64, shape).unwrap()
    };
    let template = made(&first, &shape);
    for (key, value) in [("key:2", "xyz"), ("\r\n\r\n\0", "\u{7f}\r\n")] {
        let other = set(key, value);
        assert!(equals(&template.template, other.as_bytes()));
        let shape = (shapes.request)(other.as_bytes()).unwrap();
        assert_eq!(made(&other, &shape).key, template.key);
        let same = |request: &str| line(&parse(&redis::PROTOCOL, request, "+OK\r\n"));
        assert_eq!(same(&other), same(&first));
    }
    for other in [
        set("key:1", "abc").replace("SET", "GET"),
        set("key:1", "abc").replace("$5", "$4"),
        set("key:1", "abc").replace("*3", "*2"),
    ] {
        assert!(!equals(&template.template, other.as_bytes()), "{other}");
    }
    let answer = |text: &str| (shapes.answer)(text.as_bytes()).unwrap();
    let number = Made::new(ANSWER | 1, 0, b":12345\r\n", 8, &answer(":12345\r\n")).unwrap();
    assert!(equals(&number.template, b":99999\r\n"));
    assert!(!equals(&number.template, b":1\r\n:2\r\n"), "these are two answers");
    assert!(!equals(&number.template, b":-2345\r\n"));
}

#[test]
fn templates_of_no_use_make_room() {
    let mut templates = Templates::default();
    let set = |number: u32| {
        let name = format!("C{number:04}");
        format!("*2\r\n$5\r\n{name}\r\n$1\r\n1\r\n")
    };
    let mut now = 0;
    let round = |templates: &mut Templates, number: u32, now: u64| {
        for _ in 0..8 {
            learn(templates, &redis::PROTOCOL, &set(number), "+OK\r\n", 0, now);
        }
        changes(templates)
    };
    let room = (MAX_TEMPLATES - 1) / 2;
    for number in 0..room {
        now += 1;
        assert_eq!(round(&mut templates, number, now).0.len(), 2, "{number}");
    }
    // One number is left.
    round(&mut templates, room, now);
    let (put, removed) = round(&mut templates, room + 1, now);
    assert_eq!((put.len(), removed), (0, 0), "all are of use");
    let later = now + 20_000_000_000;
    assert!(templates.request(TemplateId(1), BootNanos(later)).is_some());
    let (put, removed) = round(&mut templates, room + 1, later);
    assert_eq!(put.len(), 0, "numbers rest before they are given again");
    assert!(removed > 1000);
    assert!(templates.request(TemplateId(1), BootNanos(later)).is_some());
    assert!(templates.request(TemplateId(3), BootNanos(later)).is_none());
    assert_eq!(round(&mut templates, room + 1, later + 6_000_000_000).0.len(), 2);
}

#[test]
fn templates_that_are_found_by_the_same_are_asked_in_turn() {
    let mut templates = Templates::default();
    let host = |host: char| {
        format!("GET /a HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: some program\r\nX: {host}\r\n\r\n")
    };
    for name in ['a', 'b', 'c', 'd', 'e'] {
        for _ in 0..4 {
            learn(&mut templates, &http1::PROTOCOL, &host(name), &ok(0), 0, 5);
        }
    }
    let told = |templates: &mut Templates| {
        let said = templates.take_changes().into_iter().map(|change| match change {
            Change::Put(id, template) => format!("{id} then {}", template.next),
            Change::Found(_, id) => format!("found {id}"),
            Change::Lost(_) => "lost".to_owned(),
            Change::Remove(id, _) => format!("no {id}"),
        });
        said.collect::<Vec<_>>()
    };
    let first = ["1 then 0", "found 1", "2 then 1", "found 2", "3 then 2", "found 3", "4 then 3", "found 4"];
    assert_eq!(told(&mut templates), first, "and there is no room for a fifth");
    // All but the second and the third are of no use any more.
    let later = BootNanos(20_000_000_000);
    assert!(templates.request(TemplateId(2), later).is_some());
    assert!(templates.request(TemplateId(3), later).is_some());
    templates.sweep(later);
    assert_eq!(told(&mut templates), ["2 then 0", "no 1", "found 3", "no 4"]);
    let latest = BootNanos(40_000_000_000);
    assert!(templates.request(TemplateId(2), latest).is_some());
    templates.sweep(latest);
    assert_eq!(told(&mut templates), ["found 2", "no 3"]);
    templates.sweep(BootNanos(60_000_000_000));
    assert_eq!(told(&mut templates), ["lost", "no 2"]);
    assert!(templates.is_empty());
}

#[test]
fn an_exchange_is_remembered_in_the_circumstances_of_late() {
    let mut templates = Templates::default();
    for _ in 0..8 {
        learn(&mut templates, &redis::PROTOCOL, "*1\r\n$4\r\nPING\r\n", "+PONG\r\n", 0, 5);
    }
    let knows =
        |templates: &mut Templates, state| templates.exchange(TemplateId(2), state, BootNanos(6)).is_some();
    for state in 1..20 {
        learn(&mut templates, &redis::PROTOCOL, "*1\r\n$4\r\nPING\r\n", "+PONG\r\n", state, 5);
        assert!(knows(&mut templates, 0) && knows(&mut templates, state));
    }
    assert!(!knows(&mut templates, 10));
}

#[test]
fn a_long_message_is_compared_at_its_beginning() {
    let text = [b'a'; 512];
    let shape = |compared| Shape { compared, ..Shape::default() };
    let made = Made::new(1, 8, &text, 100_000, &shape(512)).unwrap();
    assert!(equals(&made.template, &text));
    assert!(Made::new(1, 8, &[b'a'; 600], 600, &shape(513)).is_none());
    assert!(Made::new(1, 8, &text, 600, &shape(513)).is_none());
    assert!(Made::new(1, 8, &text, 1 << 40, &shape(8)).is_none());
}
