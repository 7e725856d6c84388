//! What is said of a disk that stops taking what was gathered, which needs a file that cannot be
//! written to.

use std::convert::Infallible;
use std::fs::File;

use super::*;
use crate::HostIdentity;

#[test]
fn a_flush_that_fails_is_said_once_and_what_it_lost_is_counted() {
    let place = tempfile::tempdir().unwrap();
    let identity = HostIdentity::joining(1, "first".parse().unwrap());
    let dir = DataDir::create(place.path().join("data"), &identity).unwrap();
    let options = InputsOptions {
        retry_after: Duration::ZERO,
        ..InputsOptions::default()
    };
    let mut inputs = Inputs::open(&dir, options).unwrap();
    let append = |inputs: &mut Inputs, bytes: usize| {
        let Ok(kept) = inputs.append(7, 3, |_| Ok::<_, Infallible>(vec![0; bytes]));
        kept
    };
    assert!(matches!(append(&mut inputs, 10), Kept::Yes));
    assert!(matches!(inputs.flush(), Kept::Yes));
    // The disk gives up: the file is open for reading only.
    let segment = inputs.segments.back_mut().unwrap();
    let sound = std::mem::replace(
        &mut segment.file,
        Arc::new(File::open(&segment.path).unwrap()),
    );
    assert!(matches!(append(&mut inputs, 10), Kept::Yes));
    assert!(matches!(append(&mut inputs, 10), Kept::Yes));
    assert!(matches!(
        inputs.flush(),
        Kept::Stopped(StorageError::Io { .. })
    ));
    assert_eq!((inputs.take_lost(), inputs.take_lost()), (6, 0));
    assert_eq!(inputs.decisions(None), 3);
    // Said already; and nothing is gathered that could be lost.
    assert!(matches!(inputs.flush(), Kept::Yes));
    // A frame that makes it write out at once is not counted among those that were kept.
    inputs.stopped = None;
    assert!(matches!(append(&mut inputs, 10), Kept::Yes));
    assert!(matches!(
        append(&mut inputs, BUFFER_BYTES),
        Kept::Stopped(_)
    ));
    assert_eq!(inputs.take_lost(), 3);
    // It begins again, and says so.
    inputs.segments.back_mut().unwrap().file = sound;
    assert!(matches!(append(&mut inputs, 10), Kept::Again));
    assert!(matches!(inputs.flush(), Kept::Yes));
    assert_eq!(inputs.newest(u64::MAX, None).count(), 2);
}
