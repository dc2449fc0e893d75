//! Rows are built on a thread of their own: a large file takes a tenth of a second, in which the ring would fill.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use descry_process::object::{Object, debug_file};
use descry_unwind::rows::{self, Rows};
use descry_unwind::{Limits, Report};

use super::image;

/// Files that wait for the thread at most; whoever finds it full asks again later.
const MAX_ASKED: usize = 64;
/// Files that are done and not taken at most: their rows are in memory.
const MAX_BUILT: usize = 1;

/// What became of a file.
pub struct Built {
    /// The file.
    pub object: Arc<Object>,
    /// Its rows, or why there are none.
    pub rows: Result<(Rows, Report), String>,
}

struct Asked {
    object: Arc<Object>,
    image: Option<Arc<Vec<u8>>>,
}

/// The thread's two ends. It ends when this is dropped.
pub struct Builder {
    asked: SyncSender<Asked>,
    built: Receiver<Built>,
}

impl Builder {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (asked, to_build) = sync_channel::<Asked>(MAX_ASKED);
        let (done, built) = sync_channel(MAX_BUILT);
        std::thread::Builder::new().name("descry-rows".into()).spawn(move || {
            for Asked { object, image } in to_build {
                let rows = build(&object, image);
                if done.send(Built { object, rows }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { asked, built })
    }

    /// Asks for the rows of a file, of which the caller may have the image; false: too many wait.
    pub fn ask(&self, object: Arc<Object>, image: Option<Arc<Vec<u8>>>) -> bool {
        self.asked.try_send(Asked { object, image }).is_ok()
    }

    /// A file that is done.
    pub fn take(&self) -> Option<Built> {
        self.built.try_recv().ok()
    }
}

fn build(object: &Object, image: Option<Arc<Vec<u8>>>) -> Result<(Rows, Report), String> {
    let image = match image {
        Some(image) => image,
        None => Arc::new(image::of_unwind_tables(object).map_err(|error| error.to_string())?),
    };
    let limits = Limits::default();
    let own = rows::build(&image, None, &limits);
    if own.as_ref().is_ok_and(|(rows, _)| !rows.is_empty()) {
        return own.map_err(|error| error.to_string());
    }
    // A program without tables may have left them in its debug file.
    let debug = debug_file(object, None).and_then(|debug| image::of_debug_file(&debug).ok());
    let built = debug.map_or(own, |debug| rows::build(&image, Some(&debug), &limits));
    built.map_err(|error| error.to_string())
}
