//! Copying one row, with its place in hand.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::{Copied, CopyError, Terms};
use crate::{
    flag::MigrationHandle,
    reconcile::{
        Key, Rows,
        rows::said,
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

async fn copy_row<R: Rows>(
    rows: &R,
    key: &Key,
    from: Side,
    how: How,
    pace: Option<&Pace>,
) -> Result<Deed, String> {
    let to = from.other();
    let began = Instant::now();
    let mut row = rows.read(from, key).await.map_err(said)?;
    if let Some(pace) = pace {
        pace.took(began.elapsed());
    }
    if how.looks_first && rows.read(to, key).await.map_err(said)? == row {
        return Ok(Deed::Unchanged);
    }
    for _ in 0..MOVES {
        rows.write(to, key, row.as_ref()).await.map_err(said)?;
        if !how.rereads {
            return Ok(deed_of(&row));
        }
        let again = rows.read(from, key).await.map_err(said)?;
        if again == row {
            return Ok(deed_of(&row));
        }
        row = again;
    }
    Err("its source is written past the layer all the time".to_owned())
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
            let done = copy_row(rows, key, from, how, pace).await?;
            *deed.lock().unwrap_or_else(PoisonError::into_inner) = done;
            Ok(())
        });
        let copied = copied.await?;
        Ok((copied, deed.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}
