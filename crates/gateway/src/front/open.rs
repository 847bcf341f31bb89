//! Which connections a core has, so that they can be closed when the gateway stops.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::task::AbortHandle;

use crate::core::Core;

/// The connections of one core.
#[derive(Default)]
pub struct Open(RefCell<Places>);

/// A place for each, and those that are free. There may be many connections: each takes three words here.
#[derive(Default)]
struct Places {
    taken: Vec<Option<Entry>>,
    free: Vec<u32>,
}

struct Entry {
    /// Its task, once it has one.
    task: Option<AbortHandle>,
    leaving: Rc<Cell<bool>>,
    idle: bool,
}

impl Open {
    /// How many there are.
    pub fn count(&self) -> usize {
        let places = self.0.borrow();
        places.taken.len() - places.free.len()
    }

    /// Closes those that wait for a request: all of them, or those whose address is listened on no more.
    pub fn close_idle(&self, all: bool) {
        self.close(|entry| entry.idle && (all || entry.leaving.get()));
    }

    /// Closes all.
    pub fn close_all(&self) {
        self.close(|_| true);
    }

    fn close(&self, which: impl Fn(&Entry) -> bool) {
        let places = self.0.borrow();
        let entries = places.taken.iter().flatten().filter(|entry| which(entry));
        entries.filter_map(|entry| entry.task.as_ref()).for_each(AbortHandle::abort);
    }
}

/// A connection on the list. It takes itself off when it goes, however it goes.
pub struct Listed {
    open: Rc<Open>,
    core: Rc<Core>,
    place: u32,
}

impl Listed {
    /// A new connection, which waits for its first request. `leaving` is set once its address is listened on no
    /// more.
    pub fn new(open: &Rc<Open>, core: &Rc<Core>, leaving: &Rc<Cell<bool>>) -> Listed {
        let mut places = open.0.borrow_mut();
        let place = places.free.pop().unwrap_or_else(|| {
            places.taken.push(None);
            places.taken.len() as u32 - 1
        });
        places.taken[place as usize] = Some(Entry { task: None, leaving: leaving.clone(), idle: true });
        Listed { open: open.clone(), core: core.clone(), place }
    }

    /// Where it is on the list.
    pub fn place(&self) -> u32 {
        self.place
    }

    /// Whether it is to end with the request that it is at.
    pub fn is_leaving(&self) -> bool {
        let places = self.open.0.borrow();
        matches!(places.taken.get(self.place as usize), Some(Some(entry)) if entry.leaving.get())
    }

    /// Whether it waits for a request: then it can be closed at any time.
    pub fn set_idle(&self, idle: bool) {
        if let Some(Some(entry)) = self.open.0.borrow_mut().taken.get_mut(self.place as usize) {
            entry.idle = idle;
        }
    }
}

impl Open {
    /// A connection has its task.
    pub fn runs(&self, place: u32, task: AbortHandle) {
        if let Some(Some(entry)) = self.0.borrow_mut().taken.get_mut(place as usize) {
            entry.task = Some(task);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut places = self.open.0.borrow_mut();
        let entry = places.taken[self.place as usize].take();
        places.free.push(self.place);
        drop(places);
        drop(entry);
        self.core.figures.closed.bump();
    }
}
