//! Rows are built on a thread of their own: a large file takes a tenth of a second, in which the ring would fill. One
//! file at a time: what a large one needs meanwhile is 40 MB.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use descry_process::object::{Object, debug_file};
use descry_unwind::cfi::Bytes;
use descry_unwind::rows::{self, Rows};
use descry_unwind::{Limits, Report};

use super::image;

/// How long the rows of a file are waited for: two small files take as long.
const MOMENT: Duration = Duration::from_millis(2);

/// What became of a file.
pub struct Built {
    /// The file.
    pub object: Arc<Object>,
    /// Its rows, or why there are none.
    pub rows: Result<(Rows, Report), String>,
}

struct Asked {
    object: Arc<Object>,
    image: Option<Bytes>,
}

/// The thread's two ends. It ends when this is dropped.
pub struct Builder {
    asked: SyncSender<Asked>,
    built: Receiver<Built>,
    is_busy: bool,
}

impl Builder {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (asked, to_build) = sync_channel::<Asked>(1);
        let (done, built) = sync_channel(1);
        std::thread::Builder::new().name("descry-rows".into()).spawn(move || {
            for Asked { object, image } in to_build {
                let rows = build(&object, image);
                if done.send(Built { object, rows }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { asked, built, is_busy: false })
    }

    /// Asks for the rows of a file, of which the caller may have the image; false: another is not done yet.
    pub fn ask(&mut self, object: Arc<Object>, image: Option<Bytes>) -> bool {
        if self.is_busy {
            return false;
        }
        self.is_busy = self.asked.try_send(Asked { object, image }).is_ok();
        self.is_busy
    }

    /// The file that is done, or will be in a moment: small ones are.
    pub fn take(&mut self) -> Option<Built> {
        if !self.is_busy {
            return None;
        }
        let built = self.built.recv_timeout(MOMENT).ok()?;
        self.is_busy = false;
        Some(built)
    }
}

fn build(object: &Object, image: Option<Bytes>) -> Result<(Rows, Report), String> {
    let image = match image {
        Some(image) => image,
        None => image::of_unwind_tables(object).map_err(|error| error.to_string())?,
    };
    let limits = Limits::default();
    let own = rows::build((*image).as_ref(), None, &limits);
    if own.as_ref().is_ok_and(|(rows, _)| !rows.is_empty()) {
        return own.map_err(|error| error.to_string());
    }
    // A program without tables may have left them in its debug file.
    let debug = debug_file(object, None).and_then(|debug| image::of_debug_file(&debug).ok());
    let built = debug.map_or(own, |debug| rows::build((*image).as_ref(), Some((*debug).as_ref()), &limits));
    built.map_err(|error| error.to_string())
}
