//! A layered service has the name of the one it replaces.

use tonic::server::NamedService;

use crate::Migration;

/// So that tonic's `add_service` and `Routes` take it.
impl<Old: NamedService, New, P> NamedService for Migration<Old, New, P> {
    const NAME: &'static str = Old::NAME;
}
