//! The way back, from the new store to the old one.

use tower_migration::{BoxError, Side, Stage};

use crate::walk::Walk;

impl Walk<'_> {
    pub(crate) async fn write_to_both_again(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        console.say("and back: old is switched on again; it lacks all that was written meanwhile");
        world.old_faults.set(0);
        self.step(Stage::ReadNew).await?;
        self.enter("copying back");
        console.say("every write reaches both sides again; copying all keys from new to old");
        self.next_length();
        self.sync().await?;
        self.enter("old is synced again");
        self.stay().await;
        Ok(())
    }

    pub(crate) async fn read_from_old_again(&mut self) -> Result<(), BoxError> {
        self.step(Stage::WriteBoth).await?;
        self.enter("old answers");
        self.stay().await;
        Ok(())
    }

    pub(crate) async fn old_alone(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.step(Stage::OldOnly).await?;
        self.enter("old alone again");
        world.migration.drained(Side::New).await;
        world.new_faults.set(100);
        console.say("new is idle and switched off: each request to it would fail");
        self.stay().await;
        Ok(())
    }
}
