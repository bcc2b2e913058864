//! The map of guest memory.

use super::*;

fn two_regions() -> GuestMemory {
    let memory = GuestMemory::new();
    memory.map(0, 0x2000, RegionKind::Ram).unwrap();
    memory.map(0x2000, 0x1000, RegionKind::Rom).unwrap();
    memory.map(0x10000, 0x1000, RegionKind::Ram).unwrap();
    memory
}

#[test]
fn a_copy_may_cross_adjacent_regions() {
    let memory = two_regions();
    memory.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
    let mut out = [0; 4];
    memory.read(0x1ffe, &mut out).unwrap();
    assert_eq!(out, [1, 2, 3, 4]);
}

#[test]
fn a_copy_that_leaves_memory_changes_nothing() {
    let memory = two_regions();
    assert!(matches!(
        memory.write(0x2ffe, &[9; 4]),
        Err(MemoryError::Unmapped { .. })
    ));
    let mut out = [7; 2];
    memory.read(0x2ffe, &mut out).unwrap();
    assert_eq!(out, [0; 2]);
    assert!(memory.read(u64::MAX - 1, &mut [0; 4]).is_err());
}

#[test]
fn overlapping_and_unaligned_regions_are_refused() {
    let memory = two_regions();
    let map = |start, size| memory.map(start, size, RegionKind::Ram);
    assert!(matches!(
        map(0x2000, 0x1000),
        Err(MemoryError::Overlap { .. })
    ));
    assert!(matches!(
        map(0xf000, 0x2000),
        Err(MemoryError::Overlap { .. })
    ));
    assert!(matches!(
        map(0x20001, 0x1000),
        Err(MemoryError::Unaligned { .. })
    ));
    assert!(matches!(
        map(0x20000, 0),
        Err(MemoryError::Unaligned { .. })
    ));
    assert!(matches!(
        map(!0xfff, 0x2000),
        Err(MemoryError::Overlap { .. })
    ));
}

#[derive(Debug, Default)]
struct Notes(std::sync::Mutex<Vec<(u64, u64)>>);

impl CodeHolder for Notes {
    fn code_written(&self, start: u64, end: u64) {
        self.0.lock().unwrap().push((start, end));
    }
    fn withdraw_write(&self, _: u64) {}
    fn may_write(&self) -> bool {
        false
    }
    fn map_changed(&self) -> u64 {
        0
    }
    fn withdraw_range(&self, _: u64, _: u64) -> u64 {
        0
    }
    fn has_settled(&self, _: u64) -> bool {
        true
    }
}

#[test]
fn holders_of_code_hear_of_writes_to_their_pages() {
    let memory = two_regions();
    let notes = [Arc::new(Notes::default()), Arc::new(Notes::default())];
    let weak = |i: usize| Arc::downgrade(&notes[i]) as Weak<dyn CodeHolder>;
    assert_eq!(memory.add_holder(weak(0)).unwrap(), 0);
    assert_eq!(memory.add_holder(weak(1)).unwrap(), 1);
    memory.write(0x1000, &[1]).unwrap();
    memory
        .region(0x1000)
        .unwrap()
        .holders(0x1000)
        .store(0b10, Ordering::SeqCst);
    memory.write(0xffe, &[1; 8]).unwrap();
    assert!(notes[0].0.lock().unwrap().is_empty());
    assert_eq!(*notes[1].0.lock().unwrap(), [(0x1000, 0x1006)]);
}

#[test]
fn a_machine_has_a_limited_number_of_holders() {
    let memory = two_regions();
    let notes = Arc::new(Notes::default());
    for _ in 0..MAX_HOLDERS {
        memory
            .add_holder(Arc::downgrade(&notes) as Weak<dyn CodeHolder>)
            .unwrap();
    }
    let one_more = memory.add_holder(Arc::downgrade(&notes) as Weak<dyn CodeHolder>);
    assert!(matches!(one_more, Err(MemoryError::TooManyHolders)));
}
