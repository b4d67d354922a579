//! The store against a simple model, over random histories.

use super::super::claim::Wanted;
use super::super::owner::wall_ms;
use super::super::publish::publish as insert;
use super::super::session::{Duty, Session};
use super::super::statements::QueueStatements;
use super::super::store::{Access, Store, declare};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Step {
    /// Messages of these keys; with an id where it is below 3.
    Publish(Vec<(u8, u8)>),
    Claim {
        who: usize,
        many: u32,
    },
    /// Settles some of what is held.
    Settle {
        who: usize,
        which: u64,
        verdict: u8,
    },
    GiveBack {
        who: usize,
        which: u64,
    },
    Mark {
        who: usize,
        which: u64,
    },
    /// The changes so far are written.
    Commit {
        who: usize,
    },
    /// Drops the owner without a word, then begins another in its place.
    Crash {
        who: usize,
    },
    /// Somebody else takes what it holds while it lives.
    Expire {
        who: usize,
    },
    Close {
        who: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..4usize;
    let step = prop_oneof![
        3 => proptest::collection::vec((0..4u8, 0..12u8), 1..12).prop_map(Step::Publish),
        4 => (who.clone(), 1..10u32).prop_map(|(who, many)| Step::Claim { who, many }),
        4 => (who.clone(), any::<u64>(), 0..4u8).prop_map(|(who, which, verdict)| Step::Settle { who, which, verdict }),
        2 => (who.clone(), any::<u64>()).prop_map(|(who, which)| Step::GiveBack { who, which }),
        1 => (who.clone(), any::<u64>()).prop_map(|(who, which)| Step::Mark { who, which }),
        2 => who.clone().prop_map(|who| Step::Commit { who }),
        1 => who.clone().prop_map(|who| Step::Crash { who }),
        1 => who.clone().prop_map(|who| Step::Expire { who }),
        1 => who.prop_map(|who| Step::Close { who }),
    ];
    proptest::collection::vec(step, 1..40)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Delayed,
    Held(usize),
    Settled,
}

/// What a group should think of a message.
#[derive(Debug, Clone, Copy)]
struct Seen {
    place: Place,
    attempts: u32,
    unclean: u32,
}

#[derive(Debug, Default)]
struct Model {
    /// Key and publisher's id of each message that is stored.
    messages: BTreeMap<u64, (u8, Option<u8>)>,
    groups: [BTreeMap<u64, Seen>; 2],
    next: u64,
}

impl Model {
    fn publish(&mut self, key: u8, id: u8) {
        let id = (id < 3).then_some(id);
        if id.is_some() && self.messages.values().any(|(_, there)| *there == id) {
            return;
        }
        self.next += 1;
        self.messages.insert(self.next, (key, id));
        for group in &mut self.groups {
            group.insert(self.next, Seen { place: Place::Waiting, attempts: 0, unclean: 0 });
        }
    }

    /// What a claim must bring: in order, and no key of which another owner holds one.
    fn claim(&mut self, who: usize, many: u32) -> Vec<(u64, u32, u32)> {
        let group = &mut self.groups[who % 2];
        let blocked: BTreeSet<u8> = group
            .iter()
            .filter(|(_, seen)| matches!(seen.place, Place::Held(other) if other != who))
            .map(|(id, _)| self.messages[id].0)
            .filter(|key| *key > 0)
            .collect();
        let mut taken = Vec::new();
        for (id, seen) in group.iter_mut() {
            if taken.len() < many as usize && seen.place == Place::Waiting && !blocked.contains(&self.messages[id].0) {
                seen.place = Place::Held(who);
                taken.push((*id, seen.attempts, seen.unclean));
            }
        }
        taken
    }

    fn tidy(&mut self) {
        let groups = &self.groups;
        self.messages.retain(|id, _| groups.iter().any(|group| group[id].place != Place::Settled));
    }

    fn free(&mut self, who: usize, unclean: u32) {
        for seen in self.groups[who % 2].values_mut().filter(|seen| seen.place == Place::Held(who)) {
            seen.place = Place::Waiting;
            seen.unclean += unclean;
        }
    }
}

/// The store under test, with four owners: two of each group.
struct Under {
    _folder: tempfile::TempDir,
    path: PathBuf,
    queue: i64,
    groups: [i64; 2],
    sessions: Vec<Session>,
    store: Store,
}

impl Under {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");

        let store = Store::open(&path, Access::Declare, &Neighbourhoods::default(), PATIENCE).unwrap();
        let groups = GROUPS.map(|group| declare(&store, "q", Some(group), None, true).unwrap().group.unwrap());
        let queue = declare(&store, "q", None, None, true).unwrap().queue;
        let mut new = Self { _folder: folder, path, queue, groups, sessions: Vec::new(), store };
        for who in 0..4 {
            let session = new.begin(who);
            new.sessions.push(session);
        }
        new
    }

    fn begin(&self, who: usize) -> Session {
        // A connection of its own, as another process has.
        let store = Store::open(&self.path, Access::Write, &Neighbourhoods::default(), PATIENCE).unwrap();
        let duty = Duty {
            queue_name: "q".into(),
            queue: self.queue,
            group: self.groups[who % 2],
            key: KeyFrom::Message,
            by_key: true,
            max_message: 1 << 20,
            claim: Duration::from_secs(3600),
        };
        Session::begin(store, duty).unwrap()
    }

    /// Ids of the messages that are stored.
    fn stored(&mut self) -> Vec<u64> {
        let statements = QueueStatements::of(self.queue);
        self.store
            .read(|tx| {
                let mut statement = tx.prepare(&statements.shelf)?;
                statement
                    .query_map([0, 1 << 20], |row| row.get::<_, i64>(0))?
                    .map(|id| id.map(|id| id as u64))
                    .collect()
            })
            .unwrap()
    }
}

fn at(session: &Session, id: u64) -> At {
    At { position: id, epoch: session.epoch(), partition: 0 }
}

fn some(held: &[i64], which: u64) -> Vec<u64> {
    held.iter().enumerate().filter(|(index, _)| which >> (index % 64) & 1 == 1).map(|(_, id)| *id as u64).collect()
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut under = Under::new();
    let mut model = Model::default();
    let statements = QueueStatements::of(under.queue);
    // What each owner was told and has not written: to be applied to the model when it is.
    let mut untold: Vec<Vec<(u64, Seen)>> = vec![Vec::new(); 4];
    for step in steps {
        match step {
            Step::Publish(all) => {
                let messages = all.iter().map(|(key, id)| {
                    let mut message = Message::new("x");
                    message.key = (*key > 0).then(|| vec![*key].into());
                    if *id < 3 { message.with_id(id.to_string()) } else { message }
                });
                let slab = slab(messages.collect::<Vec<_>>());
                under.store.write(true, |tx| insert(tx, under.queue, &statements, [&*slab])).unwrap();
                all.iter().for_each(|(key, id)| model.publish(*key, *id));
            }
            Step::Claim { who, many } => {
                for (id, seen) in untold[who].drain(..) {
                    model.groups[who % 2].insert(id, seen);
                }
                model.tidy();
                let wanted = Wanted { messages: many, bytes: 1 << 20, at_least_one: true };
                let report = under.sessions[who].commit(Some(wanted)).unwrap();
                let heads = report.slabs.iter().flat_map(|slab| slab.heads().to_vec());
                let got: Vec<_> = heads.map(|head| (head.at.position, head.attempts, head.unclean)).collect();
                prop_assert_eq!(got, model.claim(who, many));
            }
            Step::Settle { who, which, verdict } => {
                let session = &mut under.sessions[who];
                let verdict = match verdict {
                    0 | 1 => Verdict::Acked,
                    _ => Verdict::Retry { after: Duration::from_secs(3600), attempts: 3 },
                };
                for id in some(&session.held_ids(), which) {
                    let before = model.groups[who % 2][&id];
                    let seen = match verdict {
                        Verdict::Retry { attempts, .. } => {
                            let unclean = before.unclean;
                            Seen { place: Place::Delayed, attempts, unclean }
                        }
                        _ => Seen { place: Place::Settled, ..before },
                    };
                    session.settle(vec![Settlement { at: at(session, id), verdict }]);
                    untold[who].push((id, seen));
                }
            }
            Step::GiveBack { who, which } => {
                let session = &mut under.sessions[who];
                for id in some(&session.held_ids(), which) {
                    // A mark that is not written yet counts.
                    let before = untold[who].iter().rev().find(|(one, _)| *one == id).map(|(_, seen)| *seen);
                    let before = before.unwrap_or(model.groups[who % 2][&id]);
                    session.give_back([at(session, id)]);
                    untold[who].push((id, Seen { place: Place::Waiting, ..before }));
                }
            }
            Step::Mark { who, which } => {
                let session = &mut under.sessions[who];
                for id in some(&session.held_ids(), which & 3) {
                    let before = untold[who].iter().rev().find(|(one, _)| *one == id).map(|(_, seen)| *seen);
                    let before = before.unwrap_or(model.groups[who % 2][&id]);
                    session.mark(at(session, id));
                    untold[who].push((id, Seen { attempts: before.attempts + 1, ..before }));
                }
            }
            Step::Commit { who } => {
                under.sessions[who].commit(None).unwrap();
                for (id, seen) in untold[who].drain(..) {
                    model.groups[who % 2].insert(id, seen);
                }
                model.tidy();
            }
            Step::Crash { who } => {
                untold[who].clear();
                let new = under.begin(who);
                drop(std::mem::replace(&mut under.sessions[who], new));
                under.sessions[who].free_ended_owners().unwrap();
                model.free(who, 1);
            }
            Step::Expire { who } => {
                let told = untold[who].len();
                untold[who].clear();
                // What another process does to an owner whose time is over.
                under.sessions[who].expire_for_test(&under.store);
                model.free(who, 1);
                let wanted = Wanted { messages: 0, bytes: 0, at_least_one: false };
                let report = under.sessions[who].commit(Some(wanted)).unwrap();
                prop_assert!(report.lost.is_some() && report.proven == Tally::default());
                prop_assert!(report.stale.total() as usize <= told);
                prop_assert_eq!(under.sessions[who].held(), 0);
            }
            Step::Close { who } => {
                for (id, seen) in untold[who].drain(..) {
                    model.groups[who % 2].insert(id, seen);
                }
                model.free(who, 0);
                model.tidy();
                under.sessions[who].give_back_all();
                under.sessions[who].commit(None).unwrap();
                let new = under.begin(who);
                std::mem::replace(&mut under.sessions[who], new).end().unwrap();
            }
        }
        let stored = under.stored();
        prop_assert_eq!(stored, model.messages.keys().copied().collect::<Vec<_>>(), "what is stored");
        for (who, untold) in untold.iter().enumerate() {
            let held = under.sessions[who].held_ids();
            let gone: BTreeSet<u64> =
                untold.iter().filter(|(_, seen)| !matches!(seen.place, Place::Held(_))).map(|(id, _)| *id).collect();
            let wanted: Vec<i64> = model.groups[who % 2]
                .iter()
                .filter(|(id, seen)| seen.place == Place::Held(who) && !gone.contains(id))
                .map(|(id, _)| *id as i64)
                .collect();
            prop_assert_eq!(held, wanted, "what {} holds", who);
        }
    }
    // At the end everything that is neither settled nor delayed can still be had.
    for (who, untold) in untold.iter_mut().enumerate() {
        under.sessions[who].give_back_all();
        under.sessions[who].commit(None).unwrap();
        for (id, seen) in untold.drain(..) {
            model.groups[who % 2].insert(id, seen);
        }
        model.free(who, 0);
    }
    for who in 0..2 {
        let wanted = Wanted { messages: 1_000, bytes: 1 << 20, at_least_one: true };
        let report = under.sessions[who].commit(Some(wanted)).unwrap();
        let left: usize = report.slabs.iter().map(Slab::len).sum();
        let waiting = model.groups[who].values().filter(|seen| seen.place == Place::Waiting).count();
        prop_assert_eq!(left, waiting);
        let delayed = model.groups[who].values().filter(|seen| seen.place == Place::Delayed).count() as u64;
        prop_assert_eq!(under.sessions[who].backlog().unwrap().delayed, Some(delayed));
        prop_assert!(report.next_due_ms.is_some() == (delayed > 0));
        prop_assert!(report.next_due_ms.is_none_or(|due| due > wall_ms()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_history_leaves_the_store_as_the_model_says(steps in steps()) {
        run(steps)?;
    }
}
