//! Names of methods and services, as users write them.

use super::GrpcConfigError;

/// Checks `/package.Service/Method`.
pub(super) fn method(name: &str) -> Result<&str, GrpcConfigError> {
    name.strip_prefix('/')
        .and_then(|name| name.split_once('/'))
        .filter(|(service, method)| is_dotted(service) && is_word(method))
        .map(|_| name)
        .ok_or_else(|| GrpcConfigError::MethodName { name: name.into() })
}

/// What the paths start with that `package.Service` or `package.*` stands for.
pub(super) fn prefix(name: &str) -> Result<Box<str>, GrpcConfigError> {
    match name.strip_suffix(".*") {
        Some(package) if is_dotted(package) => Ok(format!("/{package}.").into()),
        None if is_dotted(name) => Ok(format!("/{name}/").into()),
        _ => Err(GrpcConfigError::ServiceName { name: name.into() }),
    }
}

fn is_dotted(name: &str) -> bool {
    name.split('.').all(is_word)
}

/// Wider than protobuf's identifiers: gRPC also carries services that were
/// described in other ways. What a path cannot have, or is surely a slip, is
/// out.
fn is_word(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"./*?#%".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_two_slashes_and_nothing_odd() {
        for good in ["/airports.v1.Airports/Get", "/Greeter/Say_hello2", "/a-b.C/d"] {
            assert_eq!(method(good).ok(), Some(good));
        }
        for bad in [
            "",
            "/",
            "//",
            "Get",
            "airports.v1.Airports/Get",
            "airports.v1.Airports.Get",
            "/airports.v1.Airports",
            "/airports.v1.Airports/",
            "/airports.v1.Airports/Get/",
            "/airports.v1.Airports/Get/More",
            "//Get",
            "/airports..Airports/Get",
            "/.Airports/Get",
            "/Airports./Get",
            "/airports.v1.Airports/Get ",
            " /airports.v1.Airports/Get",
            "/airports.v1.*/Get",
            "/airports.v1.Airports/*",
            "/airports.v1.Airports/Get?x",
            "/flughäfen.Airports/Get",
            "http://host/airports.v1.Airports/Get",
        ] {
            assert!(matches!(method(bad), Err(GrpcConfigError::MethodName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_are_whole_services_or_packages() {
        for (name, path) in [
            ("airports.v1.Airports", "/airports.v1.Airports/"),
            ("airports.*", "/airports."),
            ("Greeter", "/Greeter/"),
        ] {
            assert_eq!(prefix(name).ok().as_deref(), Some(path));
        }
        for bad in
            ["", "*", ".*", "a*", "a.*.b", "a.", ".a", "a..b", "a b", "/a.B", "a.B/", "a.B/C"]
        {
            assert!(matches!(prefix(bad), Err(GrpcConfigError::ServiceName { .. })), "{bad:?}");
        }
    }
}
