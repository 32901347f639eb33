//! Asking the authority once more, to know its noise.

use tokio::time::timeout_at;

use super::{
    super::{Ready, inner::Inner},
    Shadow,
    judge::Last,
    progress::Phase,
};
use crate::{
    compare::{InconclusiveReason, Verdict},
    protocol::Protocol,
    telemetry::NoiseRead,
};

impl<P: Send + Sync + 'static> Shadow<P> {
    /// Whether the authority is to be asked once more. By chance, whatever has
    /// been found: else it would be asked more often where something differs.
    pub(super) fn wants_noise(&self, verdict: &Verdict, path: &str) -> bool {
        let compared = matches!(
            verdict,
            Verdict::Match
                | Verdict::Mismatch(_)
                | Verdict::Inconclusive(InconclusiveReason::Transient | InconclusiveReason::Noise)
        );
        let noise = &self.settings.noise;
        compared && noise.may(path) && noise.samples(|| self.settings.core.report.need(&self.route))
    }

    /// Asks the authority once more and counts where it differs from itself.
    pub(super) async fn measure_noise<A, Req>(
        &self,
        authority: &mut Ready<A>,
        last: Last<P::Whole, P::Captured>,
    ) where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        Req: Send + 'static,
    {
        self.progress.enter(Phase::Again);
        let asked = async {
            let again = self.ask_authority(authority, &last.whole).await?;
            self.compare_itself(&last.whole, &last.mine, &again).await
        };
        let read = match timeout_at(self.deadline, asked).await {
            Ok(Ok(diff)) => match (last.raced.raced(), diff.why_unclear()) {
                (false, None) => {
                    let report = &self.settings.core.report;
                    report.count_noise(self.generation, &self.route, diff.differences());
                    match diff.is_empty() {
                        true => NoiseRead::Same,
                        false => NoiseRead::Differs,
                    }
                }
                (true, _) => NoiseRead::Raced,
                (false, Some(_)) => NoiseRead::Failed,
            },
            _ => NoiseRead::Failed,
        };
        self.settings.core.counters.noise_read(read);
    }
}
