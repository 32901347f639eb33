//! Compressed bytes, unpacked under a limit.

use std::io::{self, Read};

use bytes::Bytes;

/// All that a decoder has to give, or `None` where that is more than `limit` bytes: a
/// few kilobytes can claim to be gigabytes.
///
/// # Errors
///
/// What was packed is damaged.
pub(crate) fn unpack(decoder: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let mut plain = Vec::new();
    // One byte more shows that there is more, and no further one is unpacked.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut plain)?;
    Ok((plain.len() <= limit).then(|| plain.into()))
}
