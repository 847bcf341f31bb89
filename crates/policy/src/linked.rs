//! Doubly linked lists in one slab: push, pop at either end and removal by handle, all O(1) and
//! without allocation once the slab has grown to its working size.

const NIL: u32 = u32::MAX;

/// Names one queued element; stale once the element has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

#[derive(Clone, Debug)]
struct Node<T> {
    value: Option<T>,
    previous: u32,
    next: u32,
    generation: u32,
}

/// One list's ends. It belongs to the slab it was filled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { head: NIL, tail: NIL, len: 0 };

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    nodes: Vec<Node<T>>,
    /// The first free node; free nodes are chained by `next`.
    free: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab { nodes: Vec::new(), free: NIL }
    }

    pub(crate) fn push_back(&mut self, list: &mut List, value: T) -> Handle {
        let index = if self.free == NIL {
            self.nodes.push(Node { value: None, previous: NIL, next: NIL, generation: 0 });
            (self.nodes.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            index
        };
        let node = &mut self.nodes[index as usize];
        node.value = Some(value);
        node.previous = list.tail;
        node.next = NIL;
        let generation = node.generation;
        match list.tail {
            NIL => list.head = index,
            tail => self.nodes[tail as usize].next = index,
        }
        list.tail = index;
        list.len += 1;
        Handle { index, generation }
    }

    #[inline]
    pub(crate) fn front(&self, list: &List) -> Option<&T> {
        self.nodes.get(list.head as usize)?.value.as_ref()
    }

    pub(crate) fn pop_front(&mut self, list: &mut List) -> Option<T> {
        let head = list.head;
        if head == NIL { None } else { self.take(list, head) }
    }

    pub(crate) fn pop_back(&mut self, list: &mut List) -> Option<T> {
        let tail = list.tail;
        if tail == NIL { None } else { self.take(list, tail) }
    }

    /// The value behind a handle that is not stale.
    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        let node = self.nodes.get(handle.index as usize)?;
        if node.generation != handle.generation {
            return None;
        }
        node.value.as_ref()
    }

    /// Takes a value out of the list that it is in.
    pub(crate) fn remove(&mut self, list: &mut List, handle: Handle) -> Option<T> {
        self.get(handle)?;
        self.take(list, handle.index)
    }

    fn take(&mut self, list: &mut List, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        let value = node.value.take();
        let (previous, next) = (node.previous, node.next);
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = index;
        match previous {
            NIL => list.head = next,
            previous => self.nodes[previous as usize].next = next,
        }
        match next {
            NIL => list.tail = previous,
            next => self.nodes[next as usize].previous = previous,
        }
        list.len -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_from_the_middle_and_refuses_stale_handles() {
        let mut slab = Slab::new();
        let mut list = List::EMPTY;
        let handles: Vec<_> = (0..5).map(|i| slab.push_back(&mut list, i)).collect();
        assert_eq!(slab.remove(&mut list, handles[2]), Some(2));
        assert_eq!(slab.remove(&mut list, handles[2]), None);
        let reused = slab.push_back(&mut list, 9);
        assert_eq!(slab.get(handles[2]), None);
        assert_eq!(slab.get(reused), Some(&9));
        assert_eq!(slab.pop_back(&mut list), Some(9));
        assert_eq!(slab.pop_front(&mut list), Some(0));
        assert_eq!(slab.remove(&mut list, handles[4]), Some(4));
        assert_eq!((list.len(), slab.front(&list)), (2, Some(&1)));
        assert_eq!(slab.pop_front(&mut list), Some(1));
        assert_eq!(slab.pop_front(&mut list), Some(3));
        assert_eq!(slab.pop_front(&mut list), None);
        assert!(list.is_empty());
    }
}
