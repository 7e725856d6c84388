//! Frames and archives: the only place that turns bytes into messages and back.
//!
//! A frame is `u32 length | u8 version | u8 kind | u64 request id | archive`, integers
//! little-endian, the length counting everything after itself. A frame that is too long is refused
//! by its length, before anything is buffered. The archive is validated by rkyv's bytecheck with a
//! depth limit, then checked against the protocol's bounds; nothing here panics on any input.
//!
//! The version stands before the archive because rkyv may accept the bytes of one struct as
//! another: one version, one frozen set of types.

use rkyv::api::high::{HighDeserializer, HighSerializer};
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Deserialize, Serialize};

use crate::bounds::OutOfBounds;
use crate::limits::{ARCHIVE_DEPTH_MAX, FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX};
use crate::member::Notice;
use crate::node::{Hello, KeepAlive, KeepAliveAck, NodeAnswer, NodeCommand, Welcome};
use crate::peer::{PeerBatch, PeerGreeting, PeerHello, PeerRequest, PeerResponse};
use crate::request::{
    Request, SaveInputs, SaveSnapshot, SavedInputs, SavedSnapshot, Upload, UploadStage,
};
use crate::response::Response;

/// The version of the message set that this program speaks.
pub const VERSION: u8 = 1;

/// Bytes of a frame before the archive.
pub const HEADER_BYTES: usize = 14;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Hello`], client to host.
    Hello = 1,
    /// [`Welcome`], host to client.
    Welcome = 2,
    /// [`Request`], client to host.
    Request = 3,
    /// [`Response`], host to client.
    Response = 4,
    /// [`NodeCommand`], host to node. The request id numbers the command.
    Command = 5,
    /// [`NodeAnswer`], node to host.
    Answer = 6,
    /// [`KeepAlive`], node to host.
    KeepAlive = 7,
    /// [`KeepAliveAck`], host to node.
    KeepAliveAck = 8,
    /// [`Upload`], client to host.
    Upload = 9,
    /// [`UploadStage`], host to client.
    Stage = 10,
    /// [`Notice`], host to client.
    Notice = 11,
    /// [`PeerHello`], host to host.
    PeerHello = 12,
    /// [`PeerGreeting`], host to host.
    PeerGreeting = 13,
    /// [`PeerBatch`], host to host.
    PeerBatch = 14,
    /// [`PeerRequest`], host to host.
    PeerRequest = 15,
    /// [`PeerResponse`], host to host.
    PeerResponse = 16,
    /// [`SaveSnapshot`], client to host.
    SaveSnapshot = 17,
    /// [`SavedSnapshot`], host to client.
    SavedSnapshot = 18,
    /// [`SaveInputs`], client to host.
    SaveInputs = 19,
    /// [`SavedInputs`], host to client.
    SavedInputs = 20,
}

impl Kind {
    /// Bytes of the longest frame of this kind.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::PeerBatch => PEER_FRAME_BYTES_MAX,
            _ => FRAME_BYTES_MAX,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Request,
            4 => Self::Response,
            5 => Self::Command,
            6 => Self::Answer,
            7 => Self::KeepAlive,
            8 => Self::KeepAliveAck,
            9 => Self::Upload,
            10 => Self::Stage,
            11 => Self::Notice,
            12 => Self::PeerHello,
            13 => Self::PeerGreeting,
            14 => Self::PeerBatch,
            15 => Self::PeerRequest,
            16 => Self::PeerResponse,
            17 => Self::SaveSnapshot,
            18 => Self::SavedSnapshot,
            19 => Self::SaveInputs,
            20 => Self::SavedInputs,
            _ => return None,
        })
    }
}

/// What stands before an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Pairs an answer with its question; the sequence half of an idempotency key.
    pub request_id: u64,
}

/// A frame, still as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What stands before the archive.
    pub header: Header,
    /// The archive, not yet looked at.
    pub body: &'a [u8],
    /// Bytes that the frame took, length included.
    pub consumed: usize,
}

/// Why bytes are not a message. All but [`FrameError::OutOfBounds`] end the connection: nothing
/// after them can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond [`Kind::frame_bytes_max`].
    #[error("frame of {0} bytes; the limit is 1,048,576 (8,388,608 between hosts)")]
    TooLong(u64),
    /// The length leaves no room for a header.
    #[error("frame of {0} bytes is shorter than its header")]
    TooShort(u32),
    /// The other side speaks another version.
    #[error(
        "the other side speaks wire version {0}, this side speaks version {VERSION}; upgrade the older one"
    )]
    Version(u8),
    /// Not a kind of frame that this version knows.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// A kind of frame that has no place here.
    #[error("frame of kind {got:?} where {expected:?} was expected")]
    Unexpected {
        /// What came.
        got: Kind,
        /// What should have.
        expected: Kind,
    },
    /// The archive is not valid.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The message is well-formed, and a field of it is out of bounds.
    #[error("{0}")]
    OutOfBounds(#[from] OutOfBounds),
}

/// A message that frames can carry.
pub trait Wire:
    Archive<
        Archived: for<'a> rkyv::bytecheck::CheckBytes<Validator<'a>>
                      + Deserialize<Self, HighDeserializer<rancor::Error>>,
    > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
    + Sized
{
    /// The kind of frame that carries it.
    const KIND: Kind;

    /// Checks the bounds that its types do not.
    ///
    /// # Errors
    /// [`OutOfBounds`] names the field.
    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

/// Validates an archive: structure, text, enums, and how deep it nests.
pub type Validator<'a> = rancor::Strategy<ArchiveValidator<'a>, rancor::Error>;

macro_rules! wire {
    ($($message:ty => $kind:ident $(, $check:expr)?;)*) => {$(
        impl Wire for $message {
            const KIND: Kind = Kind::$kind;
            $(fn check_bounds(&self) -> Result<(), OutOfBounds> {
                let check: fn(&Self) -> Result<(), OutOfBounds> = $check;
                check(self)
            })?
        }
    )*};
}

wire! {
    Hello => Hello;
    Welcome => Welcome;
    Request => Request, Request::check;
    Response => Response;
    NodeCommand => Command;
    NodeAnswer => Answer;
    KeepAlive => KeepAlive;
    KeepAliveAck => KeepAliveAck;
    Upload => Upload, Upload::check;
    UploadStage => Stage;
    Notice => Notice;
    PeerHello => PeerHello, PeerHello::check;
    PeerGreeting => PeerGreeting;
    PeerBatch => PeerBatch, PeerBatch::check;
    PeerRequest => PeerRequest, PeerRequest::check;
    PeerResponse => PeerResponse;
    SaveSnapshot => SaveSnapshot;
    SavedSnapshot => SavedSnapshot;
    SaveInputs => SaveInputs, SaveInputs::check;
    SavedInputs => SavedInputs;
}

/// Appends a frame with `message` to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] when the message does not fit a frame; `out` is then as before.
pub fn encode<T: Wire>(request_id: u64, message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let archive = rkyv::to_bytes::<rancor::Error>(message)
        .map_err(|error| FrameError::Malformed(error.to_string()))?;
    let length = HEADER_BYTES - 4 + archive.len();
    if length + 4 > T::KIND.frame_bytes_max() {
        return Err(FrameError::TooLong(length as u64 + 4));
    }
    out.reserve(length + 4);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.push(VERSION);
    out.push(T::KIND as u8);
    out.extend_from_slice(&request_id.to_le_bytes());
    out.extend_from_slice(&archive);
    Ok(())
}

/// Looks for a whole frame at the beginning of `bytes`; none when more bytes are needed.
///
/// # Errors
/// As soon as the bytes that are there show that no valid frame can follow.
pub fn split(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    let too_long = FrameError::TooLong(u64::from(length) + 4);
    if length as usize + 4 > PEER_FRAME_BYTES_MAX {
        return Err(too_long);
    }
    if (length as usize) < HEADER_BYTES - 4 {
        return Err(FrameError::TooShort(length));
    }
    if let Some(&version) = rest.first()
        && version != VERSION
    {
        return Err(FrameError::Version(version));
    }
    let kind = match rest.get(1) {
        Some(&byte) => Kind::from_byte(byte).ok_or(FrameError::Kind(byte))?,
        // Only one kind may be longer, and a length without one promises nothing.
        None if length as usize + 4 > FRAME_BYTES_MAX => return Err(too_long),
        None => return Ok(None),
    };
    if length as usize + 4 > kind.frame_bytes_max() {
        return Err(too_long);
    }
    let Some(frame) = rest.get(..length as usize) else {
        return Ok(None);
    };
    let (id, body) = frame[2..]
        .split_first_chunk::<8>()
        .ok_or(FrameError::TooShort(length))?;
    let header = Header {
        kind,
        request_id: u64::from_le_bytes(*id),
    };
    Ok(Some(Frame {
        header,
        body,
        consumed: length as usize + 4,
    }))
}

/// Reads the message of a frame.
///
/// # Errors
/// [`FrameError::Unexpected`] when the frame is of another kind, [`FrameError::Malformed`] when the
/// archive is not valid, [`FrameError::OutOfBounds`] when it is and a field is not.
pub fn decode<T: Wire>(frame: &Frame<'_>) -> Result<T, FrameError> {
    if frame.header.kind != T::KIND {
        return Err(FrameError::Unexpected {
            got: frame.header.kind,
            expected: T::KIND,
        });
    }
    let message: T = from_archive(frame.body)?;
    message.check_bounds()?;
    Ok(message)
}

fn from_archive<T: Wire>(bytes: &[u8]) -> Result<T, FrameError> {
    let malformed = |error: rancor::Error| FrameError::Malformed(error.to_string());
    let depth = std::num::NonZeroUsize::new(ARCHIVE_DEPTH_MAX);
    let mut validator = ArchiveValidator::with_max_depth(bytes, depth);
    let archived =
        rkyv::api::access_with_context::<T::Archived, _, rancor::Error>(bytes, &mut validator)
            .map_err(malformed)?;
    rkyv::deserialize::<T, rancor::Error>(archived).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, NodeName, ProcessKey};
    use crate::limits::ARGS_BYTES_MAX;
    use crate::request::{CreateOptions, CreateProcess};

    fn create(args: usize) -> Request {
        let create = CreateProcess {
            key: ProcessKey::new("player", "1001").unwrap(),
            args: vec![7; args],
            selector: None,
            callback: None,
            options: CreateOptions {
                requester: Some(NodeName::new("eu-1").unwrap()),
                require: vec![("zone".to_owned(), "eu".to_owned())],
                ..CreateOptions::default()
            },
        };
        Request::CreateProcess(ClientId(3), Box::new(create))
    }

    fn frame(request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(42, request, &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Option<Request>, FrameError> {
        split(bytes)?.map(|frame| decode(&frame)).transpose()
    }

    #[test]
    fn a_message_reads_back_and_frames_follow_each_other() {
        let request = create(100);
        let mut bytes = frame(&request);
        encode(43, &Request::Status, &mut bytes).unwrap();
        let first = split(&bytes).unwrap().unwrap();
        assert_eq!(
            first.header,
            Header {
                kind: Kind::Request,
                request_id: 42
            }
        );
        assert_eq!(decode::<Request>(&first).unwrap(), request);
        assert_eq!(read(&bytes[first.consumed..]), Ok(Some(Request::Status)));
    }

    #[test]
    fn a_truncated_frame_waits_for_the_rest() {
        let bytes = frame(&create(100));
        for cut in 0..bytes.len() {
            assert_eq!(split(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_first_bytes() {
        let bytes = frame(&Request::Status);
        let too_long = (FRAME_BYTES_MAX as u32).to_le_bytes();
        assert_eq!(
            split(&too_long),
            Err(FrameError::TooLong(FRAME_BYTES_MAX as u64 + 4))
        );
        assert_eq!(split(&9_u32.to_le_bytes()), Err(FrameError::TooShort(9)));
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(split(&with(4, 2)[..5]), Err(FrameError::Version(2)));
        assert_eq!(split(&with(5, 99)[..6]), Err(FrameError::Kind(99)));
        let expected = FrameError::Unexpected {
            got: Kind::Hello,
            expected: Kind::Request,
        };
        assert_eq!(read(&with(5, 1)), Err(expected));
    }

    #[test]
    fn a_message_that_fits_no_frame_is_not_sent() {
        let labels = vec![("k".to_owned(), "v".repeat(FRAME_BYTES_MAX))];
        let request = Request::UpdateNode {
            client: ClientId(1),
            name: NodeName::new("a").unwrap(),
            epoch: crate::id::NodeEpoch(1),
            labels: Some(labels),
            capacity: None,
            share: None,
        };
        let mut bytes = vec![1, 2, 3];
        assert!(matches!(
            encode(1, &request, &mut bytes),
            Err(FrameError::TooLong(_))
        ));
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn a_field_out_of_bounds_is_named() {
        let error = read(&frame(&create(ARGS_BYTES_MAX + 1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "args is 65537, and must be at most 65,536 bytes"
        );
    }

    #[test]
    fn damaged_bytes_never_panic_and_never_pass_the_bounds() {
        let whole = frame(&create(50));
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        let (mut passed, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..=next(4) {
                let at = HEADER_BYTES + next(bytes.len() - HEADER_BYTES);
                bytes[at] ^= 1 << next(8);
            }
            match read(&bytes) {
                Ok(Some(request)) => {
                    assert_eq!(request.check(), Ok(()));
                    passed += 1;
                }
                Ok(None) => panic!("the length was not touched"),
                Err(_) => refused += 1,
            }
        }
        assert!(
            passed > 0 && refused > 0,
            "{passed} passed, {refused} refused"
        );
    }
}
