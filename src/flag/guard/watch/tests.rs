use super::*;

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A watch and the counters it looks at, a second a tick.
struct Run {
    watch: Watch,
    now: u64,
    counts: Counts,
}

impl Run {
    fn new(config: AutoRollback) -> Self {
        let mut watch = Watch::new(config);
        watch.enter(s(0), Counts::default());
        Self { watch, now: 0, counts: Counts::default() }
    }

    /// Errors over 10 %, a window of three seconds, ten samples.
    fn errors() -> Self {
        Self::new(AutoRollback::new().error_share(0.1).window(s(3)).min_samples(10))
    }

    /// A second with so many requests, of which so many fail.
    fn second(&mut self, ended: u64, unknown: u64, may: bool) -> Act {
        self.counts.ended += ended;
        self.counts.unknown += unknown;
        self.look(may)
    }

    fn look(&mut self, may: bool) -> Act {
        self.now += 1;
        self.watch.look(s(self.now), self.counts, may)
    }
}

fn rolls_back(act: Act) -> Finding {
    match act {
        Act::RollBack(finding) => finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_goes_back_when_the_share_passes_the_threshold_and_not_when_it_reaches_it() {
    let mut run = Run::errors();
    assert_eq!(run.second(100, 10, true), Act::Nothing, "10 % are allowed");
    let finding = rolls_back(run.second(1, 1, true));
    assert_eq!((finding.reason, finding.samples), (AlarmReason::Errors, 101));
    assert!((finding.measured - 11.0 / 101.0).abs() < 1e-12);
    assert!((finding.threshold - 0.1).abs() < 1e-12);
}

#[test]
fn it_says_nothing_below_the_minimum_of_samples() {
    let mut run = Run::errors();
    assert_eq!(run.second(9, 9, true), Act::Nothing);
    assert_eq!(rolls_back(run.second(1, 0, true)).samples, 10);
}

#[test]
fn samples_that_have_left_the_window_do_not_count() {
    let mut run = Run::errors();
    assert_eq!(run.second(9, 9, true), Act::Nothing);
    for _ in 0..2 {
        assert_eq!(run.second(0, 0, true), Act::Nothing);
    }
    // The first nine are older than three seconds now.
    assert_eq!(run.second(9, 0, true), Act::Nothing);
    assert_eq!(run.second(1, 0, true), Act::Nothing, "ten, and none of them failed");
}

#[test]
fn each_threshold_has_its_own_share() {
    let config = || AutoRollback::new().window(s(3)).min_samples(10);
    let mut slow = Run::new(config().slow_share(s(1), 0.5));
    slow.counts = Counts { ended: 100, unknown: 100, dropped: 100, timed: 10, slow: 5 };
    assert_eq!(slow.look(true), Act::Nothing, "half of them, and errors are not watched");
    slow.counts.slow = 6;
    let finding = rolls_back(slow.look(true));
    assert_eq!((finding.reason, finding.samples), (AlarmReason::Latency, 10));

    let mut left = Run::new(config().hang_up_share(0.5));
    left.counts = Counts { ended: 10, unknown: 10, dropped: 10, timed: 10, slow: 10 };
    assert_eq!(left.look(true), Act::Nothing);
    left.counts.dropped = 11;
    assert_eq!(rolls_back(left.look(true)).reason, AlarmReason::HungUp);
}

#[test]
fn it_fires_once_until_it_is_re_armed() {
    let mut run = Run::errors();
    let finding = rolls_back(run.second(100, 100, true));
    // The step is under way.
    assert_eq!(run.second(100, 100, true), Act::Nothing);
    run.watch.fired();
    assert!(!run.watch.misfired(finding), "it did go back");
    assert_eq!(run.watch.idle(), Act::Nothing, "no alarm besides");
    // Forced to `ReadNew` again.
    run.watch.enter(s(run.now), run.counts);
    assert!(matches!(run.second(100, 100, true), Act::Alarm(_)));
    assert_eq!(run.second(100, 100, true), Act::Nothing, "said once");
    run.watch.rearm();
    assert_eq!(run.look(true), Act::Nothing, "what came before does not count");
    rolls_back(run.second(100, 100, true));
}

#[test]
fn a_rollback_that_could_not_be_done_is_an_alarm_and_tried_again() {
    let mut run = Run::errors();
    let finding = rolls_back(run.second(100, 100, true));
    assert!(run.watch.misfired(finding));
    assert!(!run.watch.misfired(finding), "once");
    rolls_back(run.second(100, 100, true));
}

#[test]
fn where_it_may_not_go_back_it_raises_one_alarm() {
    let mut run = Run::errors();
    assert!(matches!(run.second(100, 50, false), Act::Alarm(_)));
    for _ in 0..10 {
        assert_eq!(run.second(100, 50, false), Act::Nothing);
    }
    // Old has become synced meanwhile.
    rolls_back(run.second(100, 50, true));
}

#[test]
fn an_alarm_ends_after_a_whole_window_below_half_the_threshold() {
    let mut run = Run::errors();
    assert!(matches!(run.second(100, 50, false), Act::Alarm(_)));
    // It takes three seconds until the failures have left the window.
    for _ in 0..2 {
        assert_eq!(run.second(100, 0, false), Act::Nothing);
    }
    // Calm from here on: for three seconds it must stay so.
    for _ in 0..3 {
        assert_eq!(run.second(100, 0, false), Act::Nothing);
    }
    assert_eq!(run.second(100, 0, false), Act::AllClear);
    assert_eq!(run.second(100, 0, false), Act::Nothing);
    assert!(matches!(run.second(100, 99, false), Act::Alarm(_)), "and may be raised again");
}

#[test]
fn an_alarm_does_not_end_between_half_the_threshold_and_the_whole() {
    let mut run = Run::errors();
    assert!(matches!(run.second(100, 50, false), Act::Alarm(_)));
    for _ in 0..20 {
        // 5 %: exactly half.
        assert_eq!(run.second(100, 5, false), Act::Nothing);
    }
    for _ in 0..2 {
        assert_eq!(run.second(100, 4, false), Act::Nothing);
    }
    // One bad second begins the window anew.
    assert_eq!(run.second(100, 20, false), Act::Nothing);
    for _ in 0..5 {
        assert_eq!(run.second(100, 0, false), Act::Nothing);
    }
    assert_eq!(run.second(100, 0, false), Act::AllClear);
}

#[test]
fn silence_is_not_calm() {
    let mut run = Run::errors();
    assert!(matches!(run.second(100, 50, false), Act::Alarm(_)));
    for _ in 0..60 {
        assert_eq!(run.second(1, 0, false), Act::Nothing);
    }
}

#[test]
fn an_alarm_ends_when_new_serves_nobody() {
    let mut run = Run::errors();
    assert!(matches!(run.second(100, 50, false), Act::Alarm(_)));
    assert_eq!(run.watch.idle(), Act::AllClear);
    assert_eq!(run.watch.idle(), Act::Nothing);
}

#[test]
fn another_stage_begins_another_window() {
    let mut run = Run::errors();
    assert_eq!(run.second(9, 9, true), Act::Nothing);
    run.watch.enter(s(run.now), run.counts);
    assert_eq!(run.second(9, 9, true), Act::Nothing, "nine of this stage");
    rolls_back(run.second(1, 1, true));
}
