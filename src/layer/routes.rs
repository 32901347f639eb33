//! What requests are counted under.

use std::sync::Arc;

use crate::{flag::ConfigError, pattern::Pattern};

/// Patterns of request paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Arc<[(Box<str>, Pattern)]>);

/// A segment longer than this is data.
const LONG: usize = 32;

impl Routes {
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let parse = |path: &str| {
            let pattern = Pattern::parse(path, |name| Some(name.to_owned()))?;
            Ok((path.into(), pattern))
        };
        Ok(Self(paths.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// The first pattern that this path fits.
    pub(crate) fn find(&self, path: &str) -> Option<&str> {
        let segments = || path.split('/').skip(1);
        let fits = |(_, pattern): &&(Box<str>, Pattern)| pattern.fits(segments());
        self.0.iter().find(fits).map(|(text, _)| &**text)
    }

    /// What a request with this path is counted under: the first pattern that it
    /// fits, or [`guess`].
    pub(crate) fn of(&self, method: &str, path: &str) -> String {
        match self.find(path) {
            Some(pattern) => format!("{method} {pattern}"),
            None => guess(method, path),
        }
    }
}

/// The path with `*` for each segment that does not look like a word of the
/// interface: those are in small letters, with dashes, and may be versions.
fn guess(method: &str, path: &str) -> String {
    let mut route = String::with_capacity(method.len() + path.len().min(256) + 1);
    route.push_str(method);
    route.push(' ');
    for segment in path.split('/').skip(1) {
        route.push('/');
        route.push_str(if is_word(segment) { segment } else { "*" });
        if route.len() > 200 {
            route.push_str("/…");
            break;
        }
    }
    route
}

fn is_word(segment: &str) -> bool {
    let version = segment.strip_prefix('v').is_some_and(|number| {
        !number.is_empty() && number.len() < 4 && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let letter = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b'.');
    version || (segment.len() <= LONG && segment.bytes().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_data_is_a_star() {
        let routes = Routes::default();
        for (path, route) in [
            ("/", "GET /"),
            ("/airports", "GET /airports"),
            ("/api/v1/airports/EDDF", "GET /api/v1/airports/*"),
            ("/users/42/e-mail_list", "GET /users/*/e-mail_list"),
            ("/v12x/va/9f1c", "GET /*/va/*"),
            ("*", "GET "),
        ] {
            assert_eq!(routes.of("GET", path), route);
        }
        let long = "/a".repeat(1_000);
        assert!(routes.of("GET", &long).len() < 210);
    }

    #[test]
    fn the_first_pattern_that_fits_names_the_route() {
        let routes = Routes::new(["/cities/*", "/cities/**"]).expect("valid");
        assert_eq!(routes.of("GET", "/cities/berlin"), "GET /cities/*");
        assert_eq!(routes.of("GET", "/cities/berlin/map"), "GET /cities/**");
        assert_eq!(routes.of("GET", "/towns/berlin"), "GET /towns/berlin");
        assert!(Routes::new(["cities"]).is_err());
    }
}
