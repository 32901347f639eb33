//! What a backfill does to one key.

use std::sync::Arc;

use crate::{
    flag::MigrationHandle,
    reconcile::{
        Deed, JobKind, Rows, SweepError,
        copy::How,
        rows::said,
        sweep::{Item, Job, Listed, Pace, Trouble},
    },
    stage::Side,
};

/// Copies a key, or says what that would do.
pub(super) struct CopyJob<R> {
    pub(super) handle: MigrationHandle,
    pub(super) rows: Arc<R>,
    pub(super) from: Side,
    pub(super) how: How,
    pub(super) dry_run: bool,
}

impl<R: Rows> CopyJob<R> {
    async fn would(&self, item: &Item) -> Result<Deed, String> {
        let read = async |side| self.rows.read(side, &item.key).await.map_err(said);
        let (row, there) = (read(self.from).await?, read(self.from.other()).await?);
        Ok(match row {
            row if row == there => Deed::Unchanged,
            Some(_) => Deed::Written,
            None => Deed::Deleted,
        })
    }
}

impl<R: Rows> Job for CopyJob<R> {
    fn kind(&self) -> JobKind {
        JobKind::Backfill
    }

    async fn one(&self, item: &Item, pace: &Pace) -> Result<Deed, Trouble> {
        if self.dry_run {
            return self.would(item).await.map_err(Trouble::Failed);
        }
        let stage = self.handle.stage();
        if stage.authority() != self.from || self.how.terms.ahead == stage.is_two_sided() {
            return Err(Trouble::Stop(SweepError::Moved { from: self.from, stage }));
        }
        // It was not there a moment ago, or nothing is: it need not be looked for.
        let absent = item.listed == Listed::SourceAlone;
        let how = How { looks_first: !absent, ..self.how };
        let copied = self.handle.copy_row(&*self.rows, &item.key, self.from, how, Some(pace));
        match copied.await {
            Ok((_, deed)) => Ok(deed),
            Err(error) => Err(Trouble::of(error, self.from)),
        }
    }
}
