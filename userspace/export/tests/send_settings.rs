//! The `OTEL_EXPORTER_OTLP_*` variables mean what the OTLP exporter specification says.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::time::Duration;

use descry_export::send::{Compression, Protocol, Settings, SettingsError, Signal};

/// Reads the variables, each without `OTEL_EXPORTER_OTLP_`.
fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::from_env(Signal::PROFILES, |name| lookup(variables, name))
}

fn lookup(variables: &[(&str, &str)], name: &str) -> Option<String> {
    let option = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
    variables.iter().find(|(name, _)| *name == option).map(|(_, value)| (*value).to_owned())
}

fn check_endpoint(variables: &[(&str, &str)], protocol: Protocol, expected: &str) {
    let settings = read(variables).unwrap();
    assert_eq!(settings.protocol, protocol, "{variables:?}");
    assert_eq!(settings.endpoint.uri().to_string(), expected, "{variables:?}");
}

#[test]
fn endpoints() {
    use Protocol::{Grpc, HttpJson, HttpProtobuf};
    check_endpoint(&[], HttpProtobuf, "http://localhost:4318/v1development/profiles");
    check_endpoint(&[("PROTOCOL", "grpc")], Grpc, "http://localhost:4317/");
    check_endpoint(&[("PROTOCOL", "http/json")], HttpJson, "http://localhost:4318/v1development/profiles");
    check_endpoint(&[("ENDPOINT", "")], HttpProtobuf, "http://localhost:4318/v1development/profiles");

    // A base gets the signal's path; the signal's own endpoint is used as it is.
    check_endpoint(&[("ENDPOINT", "http://c:1")], HttpProtobuf, "http://c:1/v1development/profiles");
    check_endpoint(&[("ENDPOINT", "https://c/a/")], HttpProtobuf, "https://c/a/v1development/profiles");
    check_endpoint(&[("ENDPOINT", "https://c/a")], HttpProtobuf, "https://c/a/v1development/profiles");
    check_endpoint(&[("PROFILES_ENDPOINT", "http://c:1")], HttpProtobuf, "http://c:1/");
    check_endpoint(&[("PROFILES_ENDPOINT", "http://c/x/?k=v")], HttpProtobuf, "http://c/x/?k=v");
    let both = [("ENDPOINT", "http://general"), ("PROFILES_ENDPOINT", "http://own/p")];
    check_endpoint(&both, HttpProtobuf, "http://own/p");

    // Port 4317 is gRPC's, unless a protocol was asked for.
    check_endpoint(&[("ENDPOINT", "http://c:4317")], Grpc, "http://c:4317/");
    check_endpoint(&[("ENDPOINT", "http://[::1]:4317/")], Grpc, "http://[::1]:4317/");
    let asked = [("ENDPOINT", "http://c:4317"), ("PROTOCOL", "http/protobuf")];
    check_endpoint(&asked, HttpProtobuf, "http://c:4317/v1development/profiles");
    let own = [("PROTOCOL", "http/json"), ("PROFILES_PROTOCOL", "grpc"), ("ENDPOINT", "http://c:9/p/")];
    check_endpoint(&own, Grpc, "http://c:9/p");

    // Without a scheme, which only gRPC allows, INSECURE decides.
    check_endpoint(&[("ENDPOINT", "c:4317")], Grpc, "https://c:4317/");
    check_endpoint(&[("ENDPOINT", "c:4317"), ("INSECURE", "True")], Grpc, "http://c:4317/");
    let own = [("ENDPOINT", "c:4317"), ("INSECURE", "true"), ("PROFILES_INSECURE", "false")];
    check_endpoint(&own, Grpc, "https://c:4317/");
    check_endpoint(&[("ENDPOINT", "https://c:4317"), ("INSECURE", "true")], Grpc, "https://c:4317/");
}

#[test]
fn an_option_takes_the_place_of_the_endpoint_variables() {
    let variables = [("PROFILES_ENDPOINT", "http://own/p"), ("TIMEOUT", "7")];
    let given = |url| {
        Settings::with_endpoint(Signal::PROFILES, "--otlp-endpoint", url, |name| lookup(&variables, name))
    };
    let settings = given("http://c:4318").unwrap();
    assert_eq!(settings.endpoint.uri().to_string(), "http://c:4318/v1development/profiles");
    assert_eq!(settings.timeout, Duration::from_millis(7));
    assert_eq!(given("http://c:4317").unwrap().protocol, Protocol::Grpc);
    let error = given("c:4318").unwrap_err().to_string();
    assert!(error.starts_with("--otlp-endpoint is invalid"), "{error}");
}

#[test]
fn whether_sending_was_asked_for() {
    let asked = |variables: &[(&str, &str)]| {
        Settings::endpoint_is_set(Signal::PROFILES, |name| lookup(variables, name))
    };
    assert!(!asked(&[("ENDPOINT", " "), ("PROTOCOL", "grpc"), ("TRACES_ENDPOINT", "http://c")]));
    assert!(asked(&[("ENDPOINT", "http://c")]));
    assert!(asked(&[("PROFILES_ENDPOINT", "http://c")]));
}

#[test]
fn the_other_options() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.compression, Compression::None);
    let variables = [
        ("TIMEOUT", "5000"),
        ("PROFILES_TIMEOUT", "250"),
        ("COMPRESSION", "gzip"),
        ("PROFILES_COMPRESSION", "zstd"),
        ("CERTIFICATE", "/ca.pem"),
        ("CLIENT_CERTIFICATE", "/c.pem"),
        ("CLIENT_KEY", "/k.pem"),
        ("PROFILES_CLIENT_KEY", "/own.pem"),
    ];
    let settings = read(&variables).unwrap();
    assert_eq!(settings.timeout, Duration::from_millis(250));
    assert_eq!(settings.compression, Compression::Zstd);
    let (certificate, key) = settings.tls.client.unwrap();
    assert_eq!(settings.tls.certificate.unwrap().path.to_str(), Some("/ca.pem"));
    assert_eq!(certificate.path.to_str(), Some("/c.pem"));
    assert_eq!(key.variable, "OTEL_EXPORTER_OTLP_PROFILES_CLIENT_KEY");
    assert_eq!(key.path.to_str(), Some("/own.pem"));
}

#[test]
fn debug_output_shows_no_header_value_and_no_query() {
    let variables = [("HEADERS", "api-key=SECRET"), ("PROFILES_ENDPOINT", "http://c/p?key=SECRET")];
    let settings = read(&variables).unwrap();
    let shown = format!("{settings:?} {}", settings.endpoint);
    assert!(shown.contains("api-key") && shown.contains("http://c/p"), "{shown}");
    assert!(!shown.contains("SECRET"), "{shown}");
}

/// The error names the variable and repeats no credential.
fn check_invalid(option: &str, value: &str) {
    let mut variables = vec![(option, value)];
    if option.ends_with("INSECURE") {
        variables.push(("ENDPOINT", "c:4317"));
    }
    let error = read(&variables).unwrap_err().to_string();
    assert!(error.starts_with(&format!("OTEL_EXPORTER_OTLP_{option} is invalid: ")), "{error}");
    assert!(error.contains("; "), "no remedy in {error}");
    assert!(!error.contains("SECRET"), "{error}");
}

#[test]
fn nonsense_names_the_variable() {
    for value in
        ["localhost:4318", "ftp://c", "http://", "http://:4317", "http://u:SECRET@c", "http://a b", "c"]
    {
        check_invalid("ENDPOINT", value);
        check_invalid("PROFILES_ENDPOINT", value);
    }
    for value in ["SECRET", "=SECRET", "a b=SECRET", "ok=1,content-type=SECRET", "a=SECRET%0A", "a=SECRET%FF"]
    {
        check_invalid("HEADERS", value);
        check_invalid("PROFILES_HEADERS", value);
    }
    for value in ["0", "-1", "10s", "1.5", "99999999999999999999", "86400001"] {
        check_invalid("TIMEOUT", value);
    }
    check_invalid("PROTOCOL", "http");
    check_invalid("PROFILES_PROTOCOL", "GRPC");
    check_invalid("COMPRESSION", "lz4");
    check_invalid("INSECURE", "yes");
    check_invalid("CLIENT_CERTIFICATE", "/c.pem");
    check_invalid("PROFILES_CLIENT_KEY", "/k.pem");
}
