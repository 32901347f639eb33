//! What a request is about.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::stage::{Share, partition};

/// What a request is about: the unit of ordering, copying and comparing.
///
/// A short text, cheap to clone. With the HTTP default it is the path of the
/// resource, such as `/airports/EDDF`; a migration may use any other as long
/// as all its writes, reads and copies agree.
///
/// Slashes make a hierarchy for reads alone: a write of `/airports/EDDF` also
/// counts as a write of `/airports` when it races a read of that list.
///
/// ```
/// use tower_migration::reconcile::Key;
///
/// let key = Key::from("/airports/EDDF");
/// assert_eq!(key.as_str(), "/airports/EDDF");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The keys above this one: `/a/b` lies under `/a`, `/a/` and `/`.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        let text = self.as_str();
        text.rmatch_indices('/')
            .flat_map(move |(at, _)| [&text[..=at], &text[..at]])
            .filter(move |above| !above.is_empty() && above.len() < text.len())
    }

    /// What the keys below this one start with.
    pub(crate) fn prefix_below(&self) -> String {
        let mut prefix = self.as_str().to_owned();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        prefix
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The keys of one request: none, one, or several (a bulk change, a rename).
///
/// Kept sorted and without duplicates, so that two requests with the same keys
/// always queue for them in the same order.
///
/// ```
/// use tower_migration::reconcile::Keys;
///
/// assert!(Keys::none().is_empty());
/// let keys: Keys = ["b", "a", "b"].into_iter().collect();
/// assert_eq!(keys.iter().map(|k| k.as_str()).collect::<Vec<_>>(), ["a", "b"]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Which);

/// Nearly always there is one, and nothing is allocated for the list of it.
#[derive(Clone, PartialEq, Eq)]
enum Which {
    One(Key),
    /// None or several, sorted.
    Others(Vec<Key>),
}

impl Keys {
    /// No key: the request may be about anything.
    #[must_use]
    pub const fn none() -> Self {
        Self(Which::Others(Vec::new()))
    }

    fn as_slice(&self) -> &[Key] {
        match &self.0 {
            Which::One(key) => std::slice::from_ref(key),
            Which::Others(keys) => keys,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// In sorted order.
    pub fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.as_slice().iter()
    }

    /// The keys of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        self.iter().chain(&other).cloned().collect()
    }

    /// Whether there are keys, and a ramp's share covers all of them.
    pub(crate) fn covered_by(&self, share: Share, seed: u64) -> bool {
        !self.is_empty() && self.iter().all(|key| share.covers(partition(seed, key.as_str())))
    }

    /// Those of `self` that are not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.iter().filter(|key| !other.as_slice().contains(key)).cloned().collect()
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.as_slice()).finish()
    }
}

impl<'a> IntoIterator for &'a Keys {
    type Item = &'a Key;
    type IntoIter = std::slice::Iter<'a, Key>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Into<Key>> FromIterator<K> for Keys {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        // Fused: both are asked for, and a user's iterator may not like that.
        let mut keys = keys.into_iter().map(Into::into).fuse();
        let (first, second) = match (keys.next(), keys.next()) {
            (None, _) => return Self::none(),
            (Some(only), None) => return only.into(),
            (Some(first), Some(second)) => (first, second),
        };
        let mut all: Vec<Key> = [first, second].into_iter().chain(keys).collect();
        all.sort_unstable();
        all.dedup();
        match all.len() {
            1 => all.swap_remove(0).into(),
            _ => Self(Which::Others(all)),
        }
    }
}

impl<K: Into<Key>> From<K> for Keys {
    fn from(key: K) -> Self {
        Self(Which::One(key.into()))
    }
}

impl<K: Into<Key>> From<Vec<K>> for Keys {
    fn from(keys: Vec<K>) -> Self {
        keys.into_iter().collect()
    }
}

impl<K: Into<Key>> From<Option<K>> for Keys {
    fn from(key: Option<K>) -> Self {
        key.into_iter().collect()
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("(no key)");
        }
        for (at, key) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(key, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_go_up_to_the_root_and_never_name_the_key_itself() {
        let above = |text: &str| Key::from(text).ancestors().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(above("/a/b/c"), ["/a/b/", "/a/b", "/a/", "/a", "/"]);
        assert_eq!(above("/a"), ["/"]);
        assert_eq!(above("/"), Vec::<String>::new());
        assert_eq!(above("plain"), Vec::<String>::new());
        assert_eq!(above("tenant/7"), ["tenant/", "tenant"]);
        assert_eq!(above("/a/"), ["/a", "/"]);
    }

    #[test]
    fn one_key_is_the_same_however_it_came() {
        let one = Keys::from("a");
        assert_eq!(one, ["a", "a"].into_iter().collect());
        assert_eq!(one, Keys::from(vec!["a"]));
        assert_eq!(one, Keys::none().union(Keys::from("a")));
        assert_eq!(one, Keys::from("a").union(Keys::from("a")));
        assert_eq!(one, Keys::from(vec!["b", "a"]).without(&Keys::from("b")));
        assert_eq!(Keys::from("a").without(&one), Keys::none());
        assert_eq!((one.len(), one.to_string()), (1, "a".to_owned()));
        assert_eq!(format!("{one:?}"), r#"Keys(["a"])"#);
    }
}
