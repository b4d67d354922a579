//! Queues, their groups, and who owns what.

use longshore::message::{At, ID_HEADER, Message, Slab, SlabBuilder};
use longshore::transport::Inspection;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

#[derive(Default)]
pub struct World {
    queues: BTreeMap<String, Queue>,
    epochs: u32,
}

#[derive(Default)]
pub struct Queue {
    name: Arc<str>,
    /// Everything that was stored, by row.
    stored: BTreeMap<u64, Arc<Message>>,
    rows: u64,
    groups: BTreeMap<String, Group>,
}

/// What a group has still to settle, in order.
#[derive(Default)]
pub struct Group {
    pub open: VecDeque<Entry>,
    pub revokes: u32,
}

#[derive(Clone)]
pub struct Entry {
    pub row: u64,
    pub message: Arc<Message>,
    pub owner: Option<u32>,
    pub due: Option<Instant>,
    pub attempts: u32,
    pub unclean: u32,
}

impl Entry {
    fn new(row: u64, message: Arc<Message>) -> Self {
        Self { row, message, owner: None, due: None, attempts: 0, unclean: 0 }
    }

    pub fn is_free(&self) -> bool {
        self.owner.is_none() && self.due.is_none_or(|due| due <= Instant::now())
    }
}

impl World {
    pub fn queue(&mut self, name: &str) -> &mut Queue {
        let queue = self.queues.entry(name.to_owned()).or_default();
        queue.name = name.into();
        queue
    }

    /// Every queue, for what is wrong on purpose.
    pub fn every_queue(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.values_mut()
    }

    pub fn epoch(&mut self) -> u32 {
        self.epochs += 1;
        self.epochs
    }
}

impl Queue {
    /// Opens a group; a new one sees what is stored, if it `replays`.
    pub fn group(&mut self, name: &str, replays: bool) -> &mut Group {
        let stored = &self.stored;
        self.groups.entry(name.to_owned()).or_insert_with(|| {
            let old = stored.iter().filter(|_| replays).map(|(row, message)| Entry::new(*row, message.clone()));
            Group { open: old.collect(), revokes: 0 }
        })
    }

    /// Every group, for what is wrong on purpose.
    pub fn every_group(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.values_mut()
    }

    pub fn store(&mut self, message: Message) {
        let message = Arc::new(message);
        self.rows += 1;
        self.stored.insert(self.rows, message.clone());
        for group in self.groups.values_mut() {
            group.open.push_back(Entry::new(self.rows, message.clone()));
        }
    }

    fn is_open(&self, row: u64) -> bool {
        self.groups.is_empty() || self.groups.values().any(|group| group.open.iter().any(|entry| entry.row == row))
    }

    /// Whether a message of that id waits or is in flight.
    pub fn knows(&self, message: &Message) -> bool {
        let id = message.headers.get(ID_HEADER);
        let known = |(row, stored): (&u64, &Arc<Message>)| stored.headers.get(ID_HEADER) == id && self.is_open(*row);
        id.is_some() && self.stored.iter().any(known)
    }

    pub fn revoke(&mut self) {
        for group in self.groups.values_mut() {
            group.revokes += 1;
            group.open.iter_mut().for_each(|entry| entry.owner = None);
        }
    }

    pub fn inspect(&self, group: &str) -> Inspection {
        let open = self.groups.get(group).map(|group| &group.open);
        let count = |which: &dyn Fn(&Entry) -> bool| {
            Some(open.map_or(0, |open| open.iter().filter(|entry| which(entry)).count() as u64))
        };
        Inspection {
            queue: self.name.to_string(),
            group: Some(group.to_owned()),
            waiting: count(&Entry::is_free),
            delayed: count(&|entry| entry.owner.is_none() && !entry.is_free()),
            in_flight: count(&|entry| entry.owner.is_some()),
            ..Inspection::default()
        }
    }

    /// The next rows that some group has still to settle.
    pub fn rows(&self, from: &mut u64, max: u32) -> Slab {
        let mut builder = SlabBuilder::new();
        for (row, message) in self.stored.range(*from + 1..).filter(|(row, _)| self.is_open(**row)).take(max as usize) {
            builder.push_message(message).at = At { position: *row, epoch: 0, partition: 0 };
            *from = *row;
        }
        builder.finish(self.name.clone())
    }

    /// Takes a row off for good; whether it was there.
    pub fn remove(&mut self, row: u64) -> bool {
        let was_open = self.is_open(row);
        self.groups.values_mut().for_each(|group| group.open.retain(|entry| entry.row != row));
        self.stored.remove(&row).is_some() && was_open
    }
}

impl Group {
    /// The entry of a row, if that owner has it.
    pub fn owned(&mut self, row: u64, owner: u32) -> Option<&mut Entry> {
        self.open.iter_mut().find(|entry| entry.row == row && entry.owner == Some(owner))
    }
}
