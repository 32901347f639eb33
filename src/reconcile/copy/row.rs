//! Copying one row, with its place in hand.

use std::{fmt, sync::Mutex, sync::PoisonError};

use tokio::time::Instant;

use super::{Copied, CopyError, Terms};
use crate::{
    flag::MigrationHandle,
    reconcile::{
        Key, Rows,
        sweep::{Deed, Pace},
    },
    stage::Side,
};

/// How often a row is written because its source has moved meanwhile.
const MOVES: u32 = 16;

/// How a row is copied.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct How {
    pub(in crate::reconcile) terms: Terms,
    /// The target is read first: what is equal already is not written.
    pub(in crate::reconcile) looks_first: bool,
    /// The source is read again after it was written to the target.
    pub(in crate::reconcile) rereads: bool,
}

/// Why a row was not copied.
pub(super) enum Fault<E> {
    Rows(E),
    /// Its source has moved each time, by writers that the layer does not see.
    Moves,
}

impl<E: fmt::Display> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(error) => fmt::Display::fmt(error, f),
            Self::Moves => f.write_str("its source is written past the layer all the time"),
        }
    }
}

async fn copy_row<R: Rows>(
    rows: &R,
    key: &Key,
    from: Side,
    how: How,
    pace: Option<&Pace>,
) -> Result<Deed, Fault<R::Error>> {
    let to = from.other();
    let began = Instant::now();
    let mut row = rows.read(from, key).await.map_err(Fault::Rows)?;
    if let Some(pace) = pace {
        pace.took(began.elapsed());
    }
    if how.looks_first && rows.read(to, key).await.map_err(Fault::Rows)? == row {
        return Ok(Deed::Unchanged);
    }
    for _ in 0..MOVES {
        rows.write(to, key, row.as_ref()).await.map_err(Fault::Rows)?;
        if !how.rereads {
            return Ok(deed_of(&row));
        }
        let again = rows.read(from, key).await.map_err(Fault::Rows)?;
        if again == row {
            return Ok(deed_of(&row));
        }
        row = again;
    }
    Err(Fault::Moves)
}

const fn deed_of<R>(row: &Option<R>) -> Deed {
    if row.is_some() { Deed::Written } else { Deed::Deleted }
}

impl MigrationHandle {
    pub(in crate::reconcile) async fn copy_row<R: Rows>(
        &self,
        rows: &R,
        key: &Key,
        from: Side,
        how: How,
        pace: Option<&Pace>,
    ) -> Result<(Copied, Deed), CopyError<String>> {
        let deed = Mutex::new(Deed::Unchanged);
        let copied = self.run_copy(key, from, how.terms, || async {
            let done = copy_row(rows, key, from, how, pace).await;
            let done = done.map_err(|fault| fault.to_string())?;
            *deed.lock().unwrap_or_else(PoisonError::into_inner) = done;
            Ok(())
        });
        let copied = copied.await?;
        Ok((copied, deed.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}
