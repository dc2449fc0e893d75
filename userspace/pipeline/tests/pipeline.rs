//! What is sampled, what is sent, and what is taken out.

use descry_assemble::span::{Attribute, Span, SpanId, SpanKind, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_pipeline::{Action, Filter, RateLimit, Redactor, Rules, Sampler, Sampling, is_sampled, keeps};
use descry_process::AttributeValue;

/// A span of a trace whose randomness is `share` of all there is; `caller`: the flags that a caller sent.
fn span(share: f64, caller: Option<u8>, state: &str) -> Span {
    let randomness = ((share * (1_u64 << 56) as f64) as u64).to_be_bytes();
    let mut trace = [7; 16];
    trace[9..].copy_from_slice(&randomness[1..]);
    Span {
        trace: TraceId(trace),
        span: SpanId([1; 8]),
        parent: caller.map(|_| SpanId([2; 8])),
        trace_state: state.into(),
        flags: caller.unwrap_or(1),
        parent_is_remote: caller.map(|_| true),
        kind: SpanKind::Server,
        name: "GET".into(),
        start: UnixNanos(1_000_000_000),
        end: UnixNanos(2_000_000_000),
        status: Status::Unset,
        attributes: Vec::new().into(),
        events: Vec::new(),
        links: Vec::new(),
    }
}

fn check_sampled(sampler: (&str, &str), mut span: Span, sampled: bool, state: &str) {
    let made = Sampler::named(Some(sampler.0), Some(sampler.1)).expect("a sampler of the specification");
    Sampling::new(made, 0).begin(&mut span, None, String::new);
    assert_eq!((is_sampled(&span), &*span.trace_state), (sampled, state), "{sampler:?} of {span:?}");
}

#[test]
fn samplers_decide_as_the_specification_says() {
    for (name, of_none, of_unsampled, of_sampled) in [
        ("always_on", true, true, true),
        ("always_off", false, false, false),
        ("parentbased_always_on", true, false, true),
        ("parentbased_always_off", false, false, true),
    ] {
        check_sampled((name, ""), span(0.5, None, ""), of_none, "");
        check_sampled((name, ""), span(0.5, Some(0), ""), of_unsampled, "");
        check_sampled((name, ""), span(0.5, Some(1), ""), of_sampled, "");
    }
    // Half of them: those whose randomness is 0.5 or more.
    check_sampled(("traceidratio", "0.5"), span(0.49, None, ""), false, "");
    check_sampled(("traceidratio", "0.5"), span(0.5, None, ""), true, "ot=th:8");
    check_sampled(("traceidratio", "0.25"), span(0.75, Some(0), "a=b"), true, "ot=th:c,a=b");
    check_sampled(("traceidratio", "1"), span(0.0, None, ""), true, "ot=th:0");
    check_sampled(("traceidratio", "0"), span(0.999, None, ""), false, "");
    check_sampled(("parentbased_traceidratio", "0"), span(0.1, Some(1), "a=b"), true, "a=b");
    // A randomness that the tracestate tells goes before the trace id's.
    let told = "a=b,ot=rv:ffffffffffffff;x:1";
    check_sampled(("traceidratio", "0.5"), span(0.1, None, told), true, "ot=th:8;rv:ffffffffffffff;x:1,a=b");
}

#[test]
fn a_share_of_traces_is_that_share() {
    let sampler = Sampler::named(Some("traceidratio"), Some("0.1")).unwrap();
    let mut sampling = Sampling::new(sampler, 0);
    let sampled = (0..10_000)
        .filter(|number| {
            let mut span = span(f64::from(*number) / 10_000.0, None, "");
            sampling.begin(&mut span, None, String::new);
            is_sampled(&span)
        })
        .count();
    assert_eq!((sampled, sampling.counters().traces_not_sampled), (1000, 9000));
}

#[test]
fn a_sampler_that_takes_none_says_so() {
    let takes_none =
        |name, ratio| Sampling::new(Sampler::named(Some(name), Some(ratio)).unwrap(), 0).takes_none();
    assert!(takes_none("always_off", "") && takes_none("traceidratio", "0"));
    // A caller may have decided otherwise.
    assert!(!takes_none("parentbased_always_off", "") && !takes_none("parentbased_traceidratio", "0"));
    assert!(!takes_none("always_on", "") && !takes_none("traceidratio", "0.001"));
}

#[test]
fn samplers_that_are_none_are_refused() {
    assert!(Sampler::named(Some("sometimes"), None).is_err());
    for ratio in ["-0.1", "1.1", "NaN", "much"] {
        assert!(Sampler::named(Some("traceidratio"), Some(ratio)).is_err(), "{ratio}");
    }
    assert_eq!(
        Sampler::named(None, None).unwrap(),
        Sampler::named(Some("parentbased_always_on"), None).unwrap()
    );
}

#[test]
fn a_service_begins_so_many_traces_a_second() {
    let mut limit = RateLimit::new(10);
    let mut taken = |service: &str, millis: u64| {
        (0..100).filter(|_| limit.takes(service, UnixNanos(millis * 1_000_000))).count()
    };
    assert_eq!((taken("a", 5000), taken("b", 5000)), (10, 10));
    assert_eq!((taken("a", 5500), taken("a", 4000), taken("a", 60_000)), (5, 0, 10));
    let mut sampling = Sampling::new(Sampler::default(), 1);
    let mut limited = [span(0.0, None, ""), span(0.1, None, ""), span(0.2, Some(1), "")];
    limited.iter_mut().for_each(|span| sampling.begin(span, None, || "a".to_owned()));
    assert_eq!(limited.each_ref().map(is_sampled), [true, false, true]);
    assert_eq!(sampling.counters().traces_rate_limited, 1);
    let mut begun = |service: &str, own: Option<u32>| {
        let mut spans = [span(0.0, None, ""), span(0.1, None, ""), span(0.2, None, "")];
        spans.iter_mut().for_each(|span| sampling.begin(span, own, || service.to_owned()));
        spans.iter().filter(|span| is_sampled(span)).count()
    };
    assert_eq!([begun("b", Some(2)), begun("c", Some(0)), begun("d", None)], [2, 3, 1]);
}

#[test]
fn the_first_filter_that_fits_decides() {
    let filter = |attribute: &str, value: Option<&str>, action| Filter {
        attribute: attribute.to_owned(),
        value: value.map(|value| glob::Pattern::new(value).unwrap()),
        action,
    };
    let filters = [
        filter("url.path", Some("/healthz/deep"), Action::Keep),
        filter("url.path", Some("/healthz*"), Action::Drop),
        filter("http.response.status_code", Some("404"), Action::Drop),
        filter("service.name", Some("test-*"), Action::Drop),
    ];
    let resource = |name: &str| vec![("service.name".into(), AttributeValue::Text(name.to_owned()))];
    let path = |path: &str| -> Vec<Attribute> { vec![("url.path".into(), Value::Text(path.into()))] };
    assert!(keeps(&filters, &path("/healthz/deep"), &resource("test-a")));
    assert!(!keeps(&filters, &path("/healthz"), &resource("web")));
    assert!(!keeps(&filters, &[("http.response.status_code".into(), Value::Int(404))], &resource("web")));
    assert!(!keeps(&filters, &path("/"), &resource("test-a")));
    assert!(keeps(&filters, &path("/"), &resource("web")));
    assert!(keeps(&[], &[], &resource("web")));
}

fn check_clean(text: &str, expected: Option<&str>) {
    let rules = Rules { cards: true, tokens: true, emails: true, patterns: vec!["CUST-[0-9]+".to_owned()] };
    let clean = Redactor::new(&rules).expect("rules that compile").text(text);
    assert_eq!(clean.as_deref(), expected, "of {text:?}");
}

#[test]
fn secrets_are_taken_out() {
    // Numbers that card companies publish for tests.
    check_clean("pay 4111 1111 1111 1111 now", Some("pay [card] now"));
    check_clean("5500-0000-0000-0004,340000000000009", Some("[card],[card]"));
    check_clean("/a/b/c?mail=some.body+x@mail.example.org&x=1", Some("/a/b/c?mail=[email]&x=1"));
    check_clean("Authorization: Bearer abcdef0123456789==", Some("Authorization: Bearer [token]"));
    check_clean("eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl!", Some("[token]!"));
    check_clean("key AKIAIOSFODNN7EXAMPLE", Some("key [token]"));
    check_clean("user=a&password=hunter22&x=1", Some("user=a&password=[token]&x=1"));
    check_clean("of CUST-12345", Some("of [redacted]"));
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "4111 1111 1111 1112",
        "0000000000000000",
        "1700000000000000000",
        "GET /users/{id}",
        "SELECT * FROM t WHERE a = ?",
        "token bucket",
        "a@b",
        "ffffffffffffffffffffffffffffffff",
    ] {
        check_clean(text, None);
    }
}

#[test]
fn spans_are_cleaned_everywhere() {
    let mut redactor = Redactor::new(&Rules { emails: true, ..Rules::default() }).unwrap();
    let mut span = span(0.0, None, "");
    let secret = "a@example.org";
    span.name = format!("GET /{secret}").into();
    span.status = Status::Error(format!("no {secret}").into());
    span.attributes = vec![
        ("a".into(), Value::Text(secret.into())),
        ("b".into(), Value::Shared(secret.into())),
        ("c".into(), Value::Texts([secret.into(), "x".into()].into())),
    ]
    .into();
    let clean = redactor.span(&span).into_owned();
    assert!(!format!("{clean:?}").contains(secret), "{clean:?}");
    assert_eq!(redactor.replaced(), 5);
}
