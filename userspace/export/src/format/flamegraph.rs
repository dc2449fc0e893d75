//! A flame graph: an SVG picture that a browser lets one search and zoom, drawn by inferno.

use std::io::{self, Write};

use descry_aggregate::profile::{FrameKind, Profile, ProfileKind, Reason};
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::WriteOptions;
use super::folded::{Folded, Role};
use super::summary;

/// Shown when there is nothing to draw.
const EMPTY: &str = r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="90" viewBox="0 0 1200 90" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#f8f8f8"/>
<text x="600" y="30" text-anchor="middle" font-family="monospace" font-size="17">SUBJECT</text>
<text x="600" y="60" text-anchor="middle" font-family="monospace" font-size="12">EXTENT</text>
</svg>
"##;

/// Writes the picture.
pub fn write(profile: &Profile, out: &mut dyn Write, options: &WriteOptions) -> io::Result<()> {
    let folded = Folded::new(profile, options);
    let mut lines: Vec<String> = folded.stacks().filter(|(_, count)| *count > 0).map(line).collect();
    let (subject, extent) = (summary::subject(profile), summary::extent(profile));
    if lines.is_empty() {
        let picture = EMPTY.replace("SUBJECT", &xml_text(&subject)).replace("EXTENT", &xml_text(&extent));
        return out.write_all(picture.as_bytes());
    }
    let mut palette = PaletteMap::default();
    // inferno's own frame below all others.
    palette.insert("", color("", Role::Group));
    for (text, role) in folded.labels() {
        palette.insert(plain_words(text), color(text, role));
    }
    // inferno sorts lines as text and refuses others; there `a:b` stands between `a` and `a;c`, and `a` would be drawn
    // twice. A flame chart keeps the order that it gets, from the last line to the first.
    lines.reverse();
    let mut drawing = Options::default();
    drawing.flame_chart = true;
    drawing.title = subject;
    drawing.subtitle = Some(extent);
    drawing.count_name = if profile.kind == ProfileKind::Cpu { "samples" } else { "us" }.to_owned();
    drawing.palette_map = Some(&mut palette);
    drawing.bgcolors = Some(BackgroundColor::Grey);
    drawing.deterministic = true;
    drawing.text_truncate_direction = TextTruncateDirection::Right;
    from_lines(&mut drawing, lines.iter().map(String::as_str), out)
}

fn line((stack, count): (Vec<&str>, u64)) -> String {
    let frames: Vec<_> = stack.into_iter().map(plain_words).collect();
    format!("{} {count}", frames.join(";"))
}

/// inferno takes a number at the end of a stack for a second count, a line that begins with `# ` for a remark, and
/// `-` for a separator: with a no-break space these are names.
fn plain_words(frame: &str) -> String {
    let numeric = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '.');
    if frame.starts_with("# ") || frame.rsplit_once(' ').is_some_and(|(_, last)| numeric(last)) {
        frame.replace(' ', "\u{a0}")
    } else {
        frame.to_owned()
    }
}

fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A hue for each kind of reason: blue the network, red locks, brown disks, green sleep, violet a CPU that others have.
fn of_reason(reason: Reason) -> (u8, u8, u8) {
    match reason {
        Reason::NetworkRead | Reason::NetworkWrite | Reason::NetworkAccept | Reason::NetworkConnect => {
            (80, 130, 220)
        }
        Reason::NetworkPoll => (130, 180, 235),
        Reason::Lock => (220, 50, 60),
        Reason::Disk => (150, 105, 65),
        Reason::Sleep => (135, 185, 130),
        Reason::Pipe => (70, 165, 165),
        Reason::PageFault => (215, 120, 170),
        Reason::Child => (165, 175, 80),
        Reason::RunQueue => (150, 100, 205),
        Reason::Stopped | Reason::Other => (150, 150, 155),
    }
}

/// A hue for who made the code, its shade from the name: the same function always has the same color.
fn color(text: &str, role: Role) -> Color {
    let (red, green, blue) = match role {
        Role::Reason(reason) => of_reason(reason),
        Role::Group => (200, 200, 205),
        Role::Unknown => (170, 170, 170),
        Role::Function { kind: FrameKind::Kernel, .. } => (235, 135, 60),
        Role::Function { kind: FrameKind::Rust, .. } => (215, 95, 75),
        Role::Function { kind: FrameKind::Go, .. } => (90, 190, 210),
        Role::Function { kind: FrameKind::V8Js | FrameKind::Jvm | FrameKind::Jit, .. } => (110, 190, 100),
        Role::Function { kind: FrameKind::Native, .. } => (225, 190, 70),
    };
    let shade = text.bytes().fold(7u8, |shade, byte| shade.wrapping_mul(31).wrapping_add(byte)) % 36;
    // Inlined functions are paler than the ones that they were put into.
    let light = if matches!(role, Role::Function { inlined: true, .. }) { 30 } else { 0 };
    let tone = |base: u8| base.saturating_add(light).saturating_sub(18).saturating_add(shade);
    Color { r: tone(red), g: tone(green), b: tone(blue) }
}
