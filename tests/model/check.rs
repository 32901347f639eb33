//! Running a model to its end, or to its first loss.

use std::{fmt::Debug, hash::Hash};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Checks every reachable state: no loss, and all of `reached` seen. The model
/// is not cut off, so an end is the end; `floor` guards against one that has
/// become too small to show anything. Answers the number of states.
pub fn holds<M>(model: M, floor: usize, reached: &[&'static str]) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    // Never done early: no property of the kind `always` is ever "discovered".
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states, depth {}", checker.max_depth());
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match property.expectation {
            Expectation::Sometimes => {
                let wanted = reached.contains(&property.name);
                assert!(found.is_some() || !wanted, "never reached: {}", property.name);
                if found.is_some() && !wanted {
                    println!("  also reached: {}", property.name);
                }
            }
            Expectation::Always | Expectation::Eventually => {
                if let Some(path) = found {
                    show(property.name, &path.into_vec());
                    panic!("lost: {}", property.name);
                }
            }
        }
    }
    assert!(checker.is_done(), "cut off");
    assert!(states >= floor, "only {states} states");
    states
}

/// Expects that this very property breaks, and shows the shortest way there:
/// one more event at a time is tried until one way does it.
pub fn breaks<M>(model: &M, property: &'static str)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    for depth in 2.. {
        let until = HasDiscoveries::AllOf([property].into());
        let checker =
            model.clone().checker().finish_when(until).target_max_depth(depth).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            println!("{} states", checker.unique_state_count());
            show(property, &path.into_vec());
            return;
        }
        assert!(checker.max_depth() >= depth, "the rule is needed, so its loss must be found");
    }
}

fn show<State: Debug, Action: Debug>(property: &str, path: &[(State, Option<Action>)]) {
    println!("{property}: not so after");
    for (_, action) in path {
        if let Some(action) = action {
            println!("  {action:?}");
        }
    }
    if let Some((last, _)) = path.last() {
        println!("{last:?}");
    }
}
