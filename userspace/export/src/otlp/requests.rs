//! A profile as export requests that receivers take: each under a size, each with its own dictionary.

use descry_aggregate::profile::Profile;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;

use super::OtlpOptions;
use super::build::{Piece, Source};

/// Requests of at most `max_bytes` (protobuf, before compression) that hold every sample once. None for a profile
/// without samples.
pub fn requests<'a>(profile: &'a Profile, options: &OtlpOptions, max_bytes: usize) -> Requests<'a> {
    let source = Source::new(profile, options.clone());
    let pieces = source.pieces();
    let waiting = if pieces.is_empty() { Vec::new() } else { vec![pieces] };
    Requests { source, waiting, max_bytes, made: 0, oversized_samples: 0 }
}

/// See [`requests`]. Messages are built one by one.
#[derive(Debug)]
pub struct Requests<'a> {
    source: Source<'a>,
    /// What is still to be sent, the next at the end.
    waiting: Vec<Vec<Piece>>,
    max_bytes: usize,
    made: u64,
    oversized_samples: u64,
}

impl Requests<'_> {
    /// How many samples were left out until now, because one alone with its stack and Resource is over the limit.
    pub fn oversized_samples(&self) -> u64 {
        self.oversized_samples
    }
}

impl Iterator for Requests<'_> {
    type Item = ExportProfilesServiceRequest;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(pieces) = self.waiting.pop() {
            let message = self.source.message(&pieces, self.made);
            let size = message.encoded_len();
            if size <= self.max_bytes {
                self.made += 1;
                return Some(ExportProfilesServiceRequest {
                    resource_profiles: message.resource_profiles,
                    dictionary: message.dictionary,
                });
            }
            if let [piece] = pieces.as_slice() {
                match piece.halves() {
                    Some([first, second]) => self.waiting.extend([vec![second], vec![first]]),
                    None => self.oversized_samples = self.oversized_samples.saturating_add(piece.count),
                }
                continue;
            }
            // Parts share strings and functions, so they are larger than their share: aim at three quarters.
            let parts = (size / (self.max_bytes - self.max_bytes / 4).max(1) + 1).clamp(2, pieces.len());
            let parts: Vec<_> = pieces.chunks(pieces.len().div_ceil(parts)).map(<[Piece]>::to_vec).collect();
            self.waiting.extend(parts.into_iter().rev());
        }
        None
    }
}
