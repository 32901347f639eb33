//! Connections that leave HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Extensions, HeaderMap, Method, header};

use crate::stage::Side;

/// In the extensions of a request that asks for an upgrade (a WebSocket) or is
/// a CONNECT: keep it for as long as the upgraded connection is open.
///
/// The layer cannot see an upgraded connection, which no longer speaks HTTP.
/// A handler that moves the token into the task that serves it lets
/// [`Status`](crate::Status) count it on its side, and a step name it. A token
/// that is dropped with the request counts until then.
///
/// ```
/// use tower_migration::UpgradeToken;
///
/// async fn serve(mut request: http::Request<()>) {
///     let token = request.extensions_mut().remove::<UpgradeToken>();
///     // … in the task that owns the connection:
///     drop(token);
/// }
/// # drop(serve(http::Request::new(())));
/// ```
#[derive(Clone, Debug)]
pub struct UpgradeToken {
    _open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    counts: Arc<[AtomicUsize; 2]>,
    side: Side,
}

impl UpgradeToken {
    pub(crate) fn new(counts: &Arc<[AtomicUsize; 2]>, side: Side) -> Self {
        counts[side.index()].fetch_add(1, Ordering::Relaxed);
        Self { _open: Arc::new(Open { counts: Arc::clone(counts), side }) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts[self.side.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the request may leave HTTP.
#[inline]
pub(super) fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::CONNECT || headers.contains_key(header::UPGRADE)
}

/// Makes a request ask for no upgrade any more.
pub(super) fn strip(headers: &mut HeaderMap, extensions: &mut Extensions) {
    extensions.remove::<hyper::upgrade::OnUpgrade>();
    if headers.remove(header::UPGRADE).is_none() {
        return;
    }
    headers.remove("http2-settings");
    // `Connection` also names other hop-by-hop headers; those stay.
    let kept: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|option| {
            !option.is_empty()
                && !option.eq_ignore_ascii_case("upgrade")
                && !option.eq_ignore_ascii_case("http2-settings")
        })
        .map(str::to_owned)
        .collect();
    headers.remove(header::CONNECTION);
    if let Ok(value) = kept.join(", ").parse()
        && !kept.is_empty()
    {
        headers.insert(header::CONNECTION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripping_leaves_other_connection_options() {
        let mut request = http::Request::post("/")
            .header("upgrade", "h2c")
            .header("connection", "Upgrade, HTTP2-Settings, close")
            .header("http2-settings", "x")
            .header("accept", "*/*")
            .body(())
            .expect("valid");
        let (parts, ()) = std::mem::take(&mut request).into_parts();
        let http::request::Parts { mut headers, mut extensions, .. } = parts;
        strip(&mut headers, &mut extensions);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers["connection"], "close");
        assert!(!is_upgrade(&Method::POST, &headers));
    }

    #[test]
    fn tokens_count_until_the_last_clone_is_gone() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let token = UpgradeToken::new(&counts, Side::New);
        let again = token.clone();
        drop(token);
        assert_eq!(counts[1].load(Ordering::Relaxed), 1);
        drop(again);
        assert_eq!(counts[1].load(Ordering::Relaxed), 0);
    }
}
