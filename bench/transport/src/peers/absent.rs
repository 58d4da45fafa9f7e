//! A peer that this program was built without: the report says so.

use crate::peer::{Attached, Peer, Place, Tried};

/// Its name.
pub struct Absent(pub &'static str);

impl Absent {
    fn why<T>(&self) -> Tried<T> {
        Err(format!("this program was built without {}", self.0).into())
    }
}

impl Peer for Absent {
    fn name(&self) -> &'static str {
        self.0
    }

    fn is_there(&self) -> Tried<()> {
        self.why()
    }

    fn serve(&self, _place: &Place) -> Tried<()> {
        self.why()
    }

    fn attach(&self, _place: &Place) -> Tried<Box<dyn Attached>> {
        self.why()
    }
}
