//! The member `ot` of a `tracestate` (OpenTelemetry specification, "TraceState Handling"): `ot=th:8;rv:0123456789abcd`.

/// Hex digits of a threshold or randomness: 56 bits.
const DIGITS: usize = 14;
/// Members of a tracestate at most (W3C Trace Context, section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

fn members(state: &str) -> impl Iterator<Item = &str> {
    state.split(',').map(str::trim).filter(|member| !member.is_empty())
}

fn own_fields(state: &str) -> impl Iterator<Item = &str> {
    members(state).find_map(|member| member.strip_prefix("ot=")).unwrap_or_default().split(';')
}

/// The randomness that a tracestate tells, if it does.
pub(crate) fn explicit_randomness(state: &str) -> Option<u64> {
    let digits = own_fields(state).find_map(|field| field.strip_prefix("rv:"))?;
    let is_hex = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// A tracestate that tells the threshold, in front as a member that was changed has to be.
pub(crate) fn with_threshold(state: &str, threshold: u64) -> String {
    let digits = format!("{threshold:014x}");
    let digits = digits.trim_end_matches('0');
    let mut new = format!("ot=th:{}", if digits.is_empty() { "0" } else { digits });
    for field in own_fields(state).filter(|field| !field.is_empty() && !field.starts_with("th:")) {
        new.push(';');
        new.push_str(field);
    }
    for member in members(state).filter(|member| !member.starts_with("ot=")).take(MAX_MEMBERS - 1) {
        new.push(',');
        new.push_str(member);
    }
    new
}
