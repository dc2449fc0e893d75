//! The part of a profile that was asked for.

use std::borrow::Cow;

use descry_aggregate::profile::{FrameKind, Profile};

use super::WriteOptions;

/// The profile without what the options leave out. Tables of the result may hold equal entries and ones that nothing
/// refers to: writers that must not have these build tables of their own.
pub fn view<'a>(profile: &'a Profile, options: &WriteOptions) -> Cow<'a, Profile> {
    if options.kernel && options.inlines {
        return Cow::Borrowed(profile);
    }
    let mut profile = profile.clone();
    if !options.kernel {
        let locations = &profile.locations;
        let is_kernel = |index: &u32| {
            locations.get(*index as usize).is_some_and(|location| location.kind == FrameKind::Kernel)
        };
        for stack in &mut profile.stacks {
            stack.locations.retain(|location| !is_kernel(location));
        }
    }
    if !options.inlines {
        for location in &mut profile.locations {
            location.lines = location.lines.last().copied().into_iter().collect();
        }
        for mapping in &mut profile.mappings {
            mapping.has_inlines = false;
        }
    }
    Cow::Owned(profile)
}
