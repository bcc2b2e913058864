//! 8254: data sheet 231164-005. Times are input clocks; a count that is written in clock 0 is
//! loaded in clock 1.

use ringfence_chips::pit::{CLOCK_HZ, Pit};

/// A nanosecond within an input clock.
fn at(clock: u64) -> u64 {
    (u128::from(clock) * 1_000_000_000 / u128::from(CLOCK_HZ) + 1) as u64
}

/// Programs counter `index` with both bytes of `count`.
fn program(pit: &mut Pit, index: u8, mode: u8, count: u16, clock: u64) {
    pit.write(3, index << 6 | 0x30 | mode << 1, at(clock));
    for byte in count.to_le_bytes() {
        pit.write(index, byte, at(clock));
    }
}

fn count(pit: &mut Pit, index: u8, clock: u64) -> u16 {
    u16::from_le_bytes([pit.read(index, at(clock)), pit.read(index, at(clock))])
}

fn status(pit: &mut Pit, index: u8, clock: u64) -> u8 {
    pit.write(3, 0xe0 | 2 << index, at(clock));
    pit.read(index, at(clock))
}

#[test]
fn mode_0_interrupts_once_on_terminal_count() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 4, 0);
    assert_eq!(status(&mut pit, 0, 0), 0x70, "OUT low, count not loaded");
    assert_eq!(status(&mut pit, 0, 1), 0x30);
    assert_eq!(
        [1, 2, 4, 5, 6].map(|clock| count(&mut pit, 0, clock)),
        [4, 3, 1, 0, 0xffff]
    );
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 4, 0);
    assert_eq!(
        [0, 4, 5, 1000].map(|clock| pit.out0(at(clock))),
        [false, false, true, true]
    );
    assert_eq!(pit.take_rises(at(100_000)), 1);
    assert_eq!(pit.next_rise(at(100_000)), None);
}

#[test]
fn mode_0_stops_at_the_first_of_two_bytes() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 4, 0);
    assert!(pit.out0(at(10)));
    pit.write(0, 10, at(10));
    assert!(!pit.out0(at(10)) && !pit.out0(at(1000)));
    pit.write(0, 0, at(1000));
    assert!(!pit.out0(at(1010)) && pit.out0(at(1011)));
    assert_eq!(pit.take_rises(at(2000)), 2);
}

#[test]
fn mode_0_counts_while_the_gate_is_high() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 0, 10, 0);
    assert_eq!(count(&mut pit, 2, 50), 10, "the gate is low");
    pit.set_gate2(true, at(100));
    assert_eq!(count(&mut pit, 2, 104), 6);
    pit.set_gate2(false, at(105));
    assert_eq!(count(&mut pit, 2, 500), 5);
    assert!(!pit.out2(at(500)));
    pit.set_gate2(true, at(1000));
    assert!(!pit.out2(at(1004)) && pit.out2(at(1005)));
}

#[test]
fn mode_1_is_a_one_shot_that_the_gate_triggers() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 1, 5, 0);
    assert!(pit.out2(at(100)), "not triggered yet");
    pit.set_gate2(true, at(100));
    assert_eq!(
        [100, 101, 105, 106].map(|c| pit.out2(at(c))),
        [true, false, false, true]
    );
    // Retriggered before it ends.
    pit.set_gate2(false, at(200));
    pit.set_gate2(true, at(200));
    pit.set_gate2(false, at(203));
    pit.set_gate2(true, at(203));
    assert_eq!(
        [203, 206, 208, 209].map(|c| pit.out2(at(c))),
        [false, false, false, true]
    );
    // The gates of counters 0 and 1 never rise.
    program(&mut pit, 0, 1, 5, 300);
    assert_eq!(pit.next_rise(at(300)), None);
}

#[test]
fn mode_2_divides() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 3, 0);
    assert_eq!([1, 2, 3, 4].map(|c| count(&mut pit, 0, c)), [3, 2, 1, 3]);
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 3, 0);
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6].map(|c| pit.out0(at(c))),
        [true, true, true, false, true, true, false]
    );
    assert_eq!(pit.take_rises(at(301)), 100);
    assert_eq!(pit.take_rises(at(301)), 0);
}

#[test]
fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 10, 0);
    pit.write(0, 4, at(3));
    pit.write(0, 0, at(3));
    assert_eq!(status(&mut pit, 0, 3) & 0x40, 0x40, "null count");
    assert_eq!(
        [10, 11, 13, 14, 15].map(|c| count(&mut pit, 0, c)),
        [1, 4, 2, 1, 4]
    );
    assert_eq!(status(&mut pit, 0, 15) & 0x40, 0);
    assert_eq!(pit.take_rises(at(15)), 2);
}

#[test]
fn mode_2_gate_stops_and_restarts() {
    let mut pit = Pit::new();
    pit.set_gate2(true, at(0));
    program(&mut pit, 2, 2, 3, 0);
    assert!(!pit.out2(at(3)));
    pit.set_gate2(false, at(3));
    assert!(pit.out2(at(3)) && pit.out2(at(6)));
    pit.set_gate2(true, at(10));
    assert_eq!([12, 13, 14].map(|c| pit.out2(at(c))), [true, false, true]);
}

#[test]
fn mode_3_is_a_square_wave() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 3, 4, 0);
    assert_eq!(
        [1, 2, 3, 4, 5].map(|c| count(&mut pit, 0, c)),
        [4, 2, 4, 2, 4]
    );
    let mut pit = Pit::new();
    program(&mut pit, 0, 3, 4, 0);
    assert_eq!(
        [1, 2, 3, 4, 5].map(|c| pit.out0(at(c))),
        [true, true, false, false, true]
    );
    assert_eq!(pit.take_rises(at(41)), 10);
    // Odd: high for (N + 1) / 2, low for (N - 1) / 2.
    program(&mut pit, 0, 3, 5, 100);
    assert_eq!(
        [101, 102, 103, 104, 105, 106].map(|c| count(&mut pit, 0, c)),
        [4, 2, 0, 4, 2, 4]
    );
    program(&mut pit, 0, 3, 5, 200);
    assert_eq!(
        [201, 203, 204, 205, 206].map(|c| pit.out0(at(c))),
        [true, true, false, false, true]
    );
}

#[test]
fn modes_6_and_7_are_2_and_3() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 6, 3, 0);
    assert_eq!(status(&mut pit, 0, 3), 0x34);
    program(&mut pit, 0, 7, 4, 0);
    assert_eq!(status(&mut pit, 0, 4) & 0x3f, 0x36);
}

#[test]
fn mode_4_strobes_for_one_clock() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 4, 3, 0);
    assert_eq!(
        [0, 3, 4, 5, 9].map(|c| pit.out0(at(c))),
        [true, true, false, true, true]
    );
    assert_eq!(pit.take_rises(at(200_000)), 1);
}

#[test]
fn mode_5_strobes_after_a_trigger() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 5, 3, 0);
    assert!(pit.out2(at(4)));
    pit.set_gate2(true, at(10));
    assert_eq!([13, 14, 15].map(|c| pit.out2(at(c))), [true, false, true]);
}

#[test]
fn counts_can_be_binary_or_bcd_and_zero_is_the_largest() {
    let mut pit = Pit::new();
    pit.write(3, 0x31, at(0));
    pit.write(0, 0x00, at(0));
    pit.write(0, 0x10, at(0));
    assert_eq!(
        [1, 2, 1001, 1002].map(|c| count(&mut pit, 0, c)),
        [0x1000, 0x0999, 0, 0x9999]
    );
    let mut pit = Pit::new();
    pit.write(3, 0x35, at(0));
    pit.write(0, 0, at(0));
    pit.write(0, 0, at(0));
    assert_eq!(
        [1, 2, 10_000, 10_001].map(|c| count(&mut pit, 0, c)),
        [0, 0x9999, 1, 0]
    );
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 0, 0);
    assert_eq!(
        [1, 2, 65_536, 65_537].map(|c| count(&mut pit, 0, c)),
        [0, 0xffff, 1, 0]
    );
}

#[test]
fn one_byte_access_leaves_the_other_zero() {
    let mut pit = Pit::new();
    pit.write(3, 0x10, at(0));
    pit.write(0, 200, at(0));
    assert_eq!([pit.read(0, at(1)), pit.read(0, at(2))], [200, 199]);
    pit.write(3, 0x20, at(10));
    pit.write(0, 2, at(10));
    assert_eq!([pit.read(0, at(11)), pit.read(0, at(12))], [2, 1]);
    assert!(!pit.out0(at(10 + 512)) && pit.out0(at(11 + 512)));
}

#[test]
fn a_latched_count_stays_until_it_is_read() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(3, 0x00, at(101));
    pit.write(3, 0x00, at(201)); // ignored
    assert_eq!(count(&mut pit, 0, 500), 900);
    assert_eq!(count(&mut pit, 0, 501), 500);
}

#[test]
fn read_back_latches_counts_and_status_of_several_counters() {
    let mut pit = Pit::new();
    pit.set_gate2(true, at(0));
    for index in 0..3 {
        program(&mut pit, index, 2, 1000, 0);
    }
    pit.write(3, 0xc0 | 0x0e, at(101)); // both, all three
    for index in 0..3 {
        assert_eq!(pit.read(index, at(200)), 0xb4);
        assert_eq!(count(&mut pit, index, 300), 900);
        assert_eq!(count(&mut pit, index, 301), 700);
    }
    pit.write(3, 0xd0 | 0x04, at(401)); // count of counter 1
    assert_eq!([0, 1].map(|index| count(&mut pit, index, 501)), [500, 600]);
}

#[test]
fn the_control_word_cannot_be_read() {
    assert_eq!(Pit::new().read(3, at(5)), 0xff);
}

#[test]
fn the_next_rise_is_where_the_output_rises() {
    for mode in [0, 2, 3, 4] {
        let mut pit = Pit::new();
        program(&mut pit, 0, mode, 37, 7);
        let rise = pit.next_rise(at(7)).unwrap();
        assert!(!pit.out0(rise - 1) && pit.clone().out0(rise), "mode {mode}");
        assert_eq!(
            (pit.clone().take_rises(rise - 1), pit.take_rises(rise)),
            (0, 1)
        );
    }
}
