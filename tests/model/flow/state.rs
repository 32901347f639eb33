//! One process, one key: what there is to know at one moment.

use tower_migration::{
    FailurePolicy, Outcome, Role, Side, Stage,
    reconcile::RightSide,
    stage::{Activity, CopyPlaces, SyncTable},
};

use crate::list::List;

/// Names a leg in the queues. The copy's place has a number of its own.
pub const COPY: u8 = 100;
/// The places of a copy that was cut off, through their linger.
pub const CUT: u8 = 101;

pub const ROLES: [Role; 2] = [Role::Authority, Role::Other];

pub const fn slot(role: Role) -> usize {
    matches!(role, Role::Other) as usize
}

pub const fn ticket(write: usize, role: Role) -> u8 {
    (write * 2 + slot(role)) as u8
}

pub fn leg_of(ticket: u8) -> Option<(usize, Role)> {
    (ticket < COPY).then(|| (usize::from(ticket / 2), ROLES[usize::from(ticket % 2)]))
}

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for the authority to apply the write.
    Unstarted,
    /// Waits for its turn, or runs.
    Begun,
    /// Its time limit has passed; it waits or runs all the same.
    Late,
    /// Cut off or given up; it may land yet.
    Adrift,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leg {
    pub side: Side,
    pub phase: Phase,
    /// It holds its place in its queue.
    pub placed: bool,
    /// The ledger counts it.
    pub marked: bool,
    /// Of an earlier epoch than the flag's.
    pub earlier: bool,
    pub landed: bool,
    pub absorbed: bool,
    pub outcome: Option<Outcome>,
}

impl Leg {
    /// Whether it can still change the data.
    pub fn is_live(&self) -> bool {
        self.phase != Phase::Ended
    }
}

/// What the client of a write knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    Waits,
    Acknowledged,
    /// Refused, failed, or hung up: it was promised nothing.
    Unsure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    pub stage: Stage,
    pub raised: bool,
    /// The other side was synced when it began.
    pub synced: bool,
    pub policy: Option<FailurePolicy>,
    pub client: Client,
    pub legs: [Option<Leg>; 2],
    /// Writes that were acknowledged before it began.
    pub after: List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyPhase {
    /// Waits until no leg is on its source.
    Source,
    /// Waits for its turn.
    Turn,
    /// Notes who is near.
    Look,
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copying {
    pub from: Side,
    /// The queues of its source and of its target.
    pub source: usize,
    pub target: usize,
    pub places: CopyPlaces,
    pub phase: CopyPhase,
    pub earlier: bool,
    /// A one-sided stage came in between: it says nothing about all keys.
    pub void: bool,
    /// The dirty mark that it found, unless there has been another since.
    pub found: Option<RightSide>,
    pub read: List,
    /// A leg took a place on the source since it read.
    pub raced: bool,
    pub absorbs: List,
    /// A leg runs although the copy has its write.
    pub again: bool,
    pub repeats: u8,
}

/// What a copy that was cut off has sent to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    pub target: Side,
    pub row: List,
    pub places: CopyPlaces,
    /// It keeps its places and its mark.
    pub lingers: bool,
    pub earlier: bool,
}

/// A step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Raised(Stage),
    Held(Stage),
    /// The record says so, the flag not yet.
    Recorded(Stage),
}

/// What is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Durable {
    pub stage: Stage,
    pub sync: SyncTable,
    pub clean: bool,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub writes: u8,
    pub steps: u8,
    pub copies: u8,
    pub faults: u8,
    pub crashes: u8,
    pub stops: u8,
    pub reads: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub data: [List; 2],
    pub stage: Stage,
    pub raised: bool,
    pub holds: bool,
    pub sync: SyncTable,
    pub dirty: Option<RightSide>,
    /// The write that made the key dirty.
    pub culprit: u8,
    pub queues: [List; 2],
    pub writes: [Option<Write>; 3],
    pub copying: Option<Copying>,
    pub step: Option<Step>,
    /// An emergency exit is not on record yet.
    pub unrecorded: bool,
    pub durable: Durable,
    /// The operator has copied all keys to this side since it was last left.
    pub copied: [bool; 2],
    /// A read that is under way: its side, and what it must not miss.
    pub read: Option<(Side, List)>,
    pub cut: Option<Cut>,
    pub left: Budget,
    // What was seen once and must not be forgotten.
    pub split: bool,
    pub hasty: bool,
    pub healed: bool,
    pub landed_late: bool,
    pub absorbed: bool,
}

impl State {
    pub fn begun(&self) -> impl Iterator<Item = (usize, &Write)> {
        self.writes.iter().enumerate().filter_map(|(n, write)| Some((n, write.as_ref()?)))
    }

    pub fn legs(&self) -> impl Iterator<Item = (&Write, &Leg)> {
        self.begun().flat_map(|(_, write)| write.legs.iter().flatten().map(move |leg| (write, leg)))
    }

    pub fn leg(&self, write: usize, role: Role) -> Option<&Leg> {
        self.writes[write].as_ref()?.legs[slot(role)].as_ref()
    }

    /// What the ledger knows: no write of an earlier epoch is left.
    pub fn is_settled(&self) -> bool {
        let copying = self.copying.is_some_and(|copying| copying.earlier);
        let cut = self.cut.is_some_and(|cut| cut.lingers && cut.earlier);
        !copying && !cut && !self.legs().any(|(_, leg)| leg.marked && leg.earlier)
    }

    /// What is so, whoever knows it.
    pub fn is_truly_settled(&self) -> bool {
        !self.legs().any(|(_, leg)| leg.is_live() && leg.earlier)
    }

    /// Whether a copy to the authority keeps a step waiting.
    pub fn has_copy_to_authority(&self) -> bool {
        self.copying.is_some_and(|copying| copying.places == CopyPlaces::Both)
            || self.cut.is_some_and(|cut| cut.lingers && cut.places == CopyPlaces::Both)
    }

    pub fn is_quiet(&self) -> bool {
        self.copying.is_none()
            && self.cut.is_none()
            && self.step.is_none()
            && !self.unrecorded
            && !self.legs().any(|(_, leg)| leg.is_live())
    }

    pub fn activity(&self, queue: usize) -> Activity {
        let raced = self.copying.is_some_and(|copying| copying.raced);
        Activity { turns: u64::from(raced), busy: !self.queues[queue].is_empty() }
    }

    /// The writes that clients were promised; the row that was there at the
    /// start is one of them.
    pub fn acknowledged(&self) -> List {
        let mut list = List::of(&[0]);
        for (n, write) in self.begun() {
            if write.client == Client::Acknowledged {
                list.push(n as u8 + 1);
            }
        }
        list
    }
}
