//! The emergency exit, when no operator has asked for it.

use std::sync::{Arc, atomic::Ordering};

use super::{Target, passage_between, permission_between};
use crate::{
    flag::{Blocked, Core, Moved, Reason, gate::Position},
    stage::{Passage, Stage, Urgency},
};

impl Core {
    /// Goes back from `ReadNew`, or from a ramp, at once, if the flag has not moved since the
    /// stay that was judged. `now` is called when nothing can stop it any more
    /// and nobody else has the turn.
    pub(in crate::flag) async fn exit_by_itself(
        self: &Arc<Self>,
        stay: u64,
        now: impl FnOnce(),
    ) -> Result<Moved, Blocked> {
        let to = Stage::WriteBoth;
        let turn = self.turn(Target::Stage(to), Urgency::Emergency).await?;
        let from = self.word().position();
        let blocked = |reasons| Blocked::new(from.stage, Some(to), reasons);
        let to = Position::from(to);
        // Somebody may have moved it while this waited for its turn: from
        // `NewOnly` the same call would be a step that loses writes.
        let exit = passage_between(from, to, Urgency::Emergency) == Passage::Emergency;
        if !exit || self.entered().epoch != stay {
            return Err(blocked(vec![Reason::Overtaken]));
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(blocked(vec![Reason::ShutDown]));
        }
        let turn = self.claim(turn, Urgency::Emergency).await.map_err(|r| blocked(vec![r]))?;
        self.check(permission_between(from, to, Urgency::Emergency)).map_err(blocked)?;
        now();
        Ok(self.exit(turn, to).await)
    }
}

#[cfg(test)]
mod tests {
    use crate::{MigrationHandle, Reason, Side, Stage};

    #[tokio::test(start_paused = true)]
    async fn a_flag_that_has_moved_since_is_left_alone() -> Result<(), crate::Blocked> {
        let handle = MigrationHandle::new("x");
        handle.advance().await?;
        handle.confirm_synced(Side::New).await?;
        handle.advance().await?;
        let stay = handle.core.entered().epoch;
        let refused = |blocked: crate::Blocked| match blocked.reasons() {
            [Reason::Overtaken | Reason::Busy] => {}
            _ => panic!("{blocked}"),
        };
        let never = || panic!("it must not go back");
        // On to `NewOnly`, from where the way back would lose writes.
        handle.advance().await?;
        refused(handle.core.exit_by_itself(stay, never).await.unwrap_err());
        assert_eq!(handle.stage(), Stage::NewOnly);
        // And in `ReadNew` again, which is another stay.
        handle.rollback().await?;
        handle.confirm_synced(Side::Old).await?;
        refused(handle.core.exit_by_itself(stay, never).await.unwrap_err());
        assert_eq!(handle.stage(), Stage::ReadNew);

        let stay = handle.core.entered().epoch;
        let moved = handle.core.exit_by_itself(stay, || {}).await?;
        assert_eq!((moved.from, moved.to), (Stage::ReadNew, Stage::WriteBoth));
        Ok(())
    }
}
