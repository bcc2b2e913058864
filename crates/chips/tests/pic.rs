//! 8259A pair: data sheet 231468-003.

use ringfence_chips::pic::Pics;

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;

/// Vectors 20h and 28h, cascade at IRQ 2, ICW4 as given, everything unmasked.
fn pics(icw4: u8) -> Pics {
    let mut pics = Pics::new();
    for (port, base, cascade) in [(MASTER, 0x20, 4), (SLAVE, 0x28, 2)] {
        pics.write(port, 0x11);
        for icw in [base, cascade, icw4] {
            pics.write(port + 1, icw);
        }
    }
    pics
}

fn register(pics: &mut Pics, port: u16, isr: bool) -> u8 {
    pics.write(port, 0x0a | u8::from(isr));
    pics.read(port)
}

fn pulse(pics: &mut Pics, irq: u8) -> bool {
    let new = pics.set_line(irq, true);
    pics.set_line(irq, false);
    new
}

#[test]
fn an_edge_is_requested_acknowledged_and_ended() {
    let mut pics = pics(1);
    assert!(!pics.output());
    assert!(pics.set_line(4, true));
    assert!(!pics.set_line(4, true), "the line did not rise again");
    assert_eq!(register(&mut pics, MASTER, false), 0x10);
    assert!(pics.output());
    assert_eq!(pics.acknowledge(), 0x24);
    assert!(!pics.output(), "the line stays high: no second interrupt");
    assert_eq!(register(&mut pics, MASTER, false), 0);
    assert_eq!(register(&mut pics, MASTER, true), 0x10);
    pics.write(MASTER, 0x20);
    assert_eq!(register(&mut pics, MASTER, true), 0);
    assert!(!pics.output());
}

#[test]
fn the_slave_goes_through_the_cascade() {
    let mut pics = pics(1);
    pulse(&mut pics, 12);
    assert_eq!(register(&mut pics, MASTER, false), 4);
    assert_eq!(pics.acknowledge(), 0x2c);
    assert_eq!(register(&mut pics, MASTER, true), 4);
    assert_eq!(register(&mut pics, SLAVE, true), 0x10);
    // IRQ 2 has no line of its own.
    assert!(!pulse(&mut pics, 2));
    // The slave is locked out until both are ended.
    pulse(&mut pics, 8);
    pics.write(SLAVE, 0x20);
    assert!(!pics.output());
    pics.write(MASTER, 0x20);
    assert_eq!(pics.acknowledge(), 0x28);
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut pics = pics(0x11);
    pulse(&mut pics, 12);
    assert_eq!(pics.acknowledge(), 0x2c);
    pulse(&mut pics, 13);
    assert!(!pics.output(), "lower priority within the slave");
    pulse(&mut pics, 3);
    assert!(!pics.output(), "lower priority in the master");
    pulse(&mut pics, 8);
    assert_eq!(pics.acknowledge(), 0x28);
}

#[test]
fn priorities_are_fixed_until_they_are_rotated() {
    let mut pics = pics(1);
    for irq in [5, 3, 6] {
        pulse(&mut pics, irq);
    }
    assert_eq!(pics.acknowledge(), 0x23);
    assert!(!pics.output(), "5 and 6 wait for 3");
    pulse(&mut pics, 0);
    assert_eq!(pics.acknowledge(), 0x20, "0 interrupts 3");
    pics.write(MASTER, 0x20);
    assert_eq!(
        register(&mut pics, MASTER, true),
        8,
        "the highest was ended"
    );
    // Rotate on non-specific EOI: 3 becomes the lowest, 4 the highest.
    pics.write(MASTER, 0xa0);
    pulse(&mut pics, 3);
    pulse(&mut pics, 1);
    assert_eq!(pics.acknowledge(), 0x25);
    pics.write(MASTER, 0x65); // specific EOI
    assert_eq!(pics.acknowledge(), 0x26);
    pics.write(MASTER, 0x66);
    assert_eq!(pics.acknowledge(), 0x21);
    pics.write(MASTER, 0xe1); // rotate on specific EOI: 1 is the lowest
    pulse(&mut pics, 1);
    assert_eq!(pics.acknowledge(), 0x23);
    pics.write(MASTER, 0x63);
    assert_eq!(pics.acknowledge(), 0x21);
    pics.write(MASTER, 0x61);
    pics.write(MASTER, 0xc5); // set priority: 5 is the lowest
    pulse(&mut pics, 5);
    pulse(&mut pics, 6);
    assert_eq!(pics.acknowledge(), 0x26);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_may_rotate() {
    let mut pics = pics(3);
    pulse(&mut pics, 0);
    pulse(&mut pics, 1);
    assert_eq!(pics.acknowledge(), 0x20);
    assert_eq!(register(&mut pics, MASTER, true), 0);
    assert_eq!(pics.acknowledge(), 0x21);
    pics.write(MASTER, 0x80); // rotate in automatic-EOI mode
    pulse(&mut pics, 0);
    assert_eq!(pics.acknowledge(), 0x20);
    pulse(&mut pics, 0);
    pulse(&mut pics, 7);
    assert_eq!(pics.acknowledge(), 0x27, "0 has the lowest priority now");
    pics.write(MASTER, 0x00);
    assert_eq!(pics.acknowledge(), 0x20);
}

#[test]
fn masks_hold_requests_back_without_losing_them() {
    let mut pics = pics(1);
    pics.write(MASTER + 1, 0xfb);
    assert_eq!(pics.read(MASTER + 1), 0xfb);
    pulse(&mut pics, 4);
    assert!(!pics.output() && pics.masked(4) && !pics.masked(8));
    pics.write(SLAVE + 1, 0x01);
    assert!(pics.masked(8) && !pics.masked(9));
    pics.write(MASTER + 1, 0x04);
    assert!(pics.masked(9), "the cascade is masked");
    assert_eq!(pics.acknowledge(), 0x24);
}

#[test]
fn special_mask_mode_opens_lower_priorities() {
    let mut pics = pics(1);
    pulse(&mut pics, 3);
    assert_eq!(pics.acknowledge(), 0x23);
    pulse(&mut pics, 5);
    assert!(!pics.output());
    pics.write(MASTER + 1, 0x08);
    assert!(!pics.output(), "a mask alone does not");
    pics.write(MASTER, 0x68);
    assert_eq!(pics.acknowledge(), 0x25);
    pics.write(MASTER, 0x20);
    assert_eq!(
        register(&mut pics, MASTER, true),
        8,
        "non-specific EOI spares the masked level"
    );
    pics.write(MASTER, 0x48);
    pics.write(MASTER, 0x20);
    assert_eq!(register(&mut pics, MASTER, true), 0);
}

#[test]
fn a_poll_acknowledges() {
    let mut pics = pics(1);
    pics.write(MASTER, 0x0c);
    assert_eq!(pics.read(MASTER), 0);
    pulse(&mut pics, 6);
    pics.write(MASTER, 0x0c);
    assert_eq!(pics.read(MASTER), 0x86);
    assert_eq!(register(&mut pics, MASTER, true), 0x40);
    assert!(!pics.output());
    assert_eq!(pics.read(MASTER), 0x40, "one read only");
}

#[test]
fn level_inputs_follow_their_line() {
    let mut pics = pics(1);
    pics.write(0x4d0, 0xff);
    pics.write(0x4d1, 0xff);
    assert_eq!((pics.read(0x4d0), pics.read(0x4d1)), (0xf8, 0xde));
    pics.set_line(11, true);
    assert_eq!(pics.acknowledge(), 0x2b);
    pics.write(SLAVE, 0x20);
    pics.write(MASTER, 0x20);
    assert_eq!(pics.acknowledge(), 0x2b, "still asserted");
    pics.set_line(11, false);
    pics.write(SLAVE, 0x20);
    pics.write(MASTER, 0x20);
    assert!(!pics.output());
}

#[test]
fn an_edge_means_nothing_once_its_input_is_level_triggered() {
    let mut pics = pics(1);
    pulse(&mut pics, 5);
    pics.write(0x4d0, 0x20);
    pics.write(0x4d0, 0x00);
    assert!(!pics.output());
}

#[test]
fn an_interrupt_that_has_gone_is_irq_7_without_service() {
    let mut pics = pics(1);
    pics.write(0x4d0, 0x20);
    pics.set_line(5, true);
    pics.set_line(5, false);
    assert_eq!(pics.acknowledge(), 0x27);
    assert_eq!(register(&mut pics, MASTER, true), 0);
}

#[test]
fn initialization_clears_masks_and_edges_and_takes_its_words_in_order() {
    let mut pics = pics(3);
    pics.write(MASTER + 1, 0xff);
    pics.set_line(1, true);
    pics.write(MASTER, 0x13); // single, ICW4 follows
    assert_eq!(pics.read(MASTER + 1), 0);
    assert_eq!(pics.read(MASTER), 0, "the edge must come anew");
    pics.write(MASTER + 1, 0x47);
    pics.write(MASTER + 1, 0x01);
    pics.write(MASTER + 1, 0x80); // OCW1
    assert_eq!(pics.read(MASTER + 1), 0x80);
    pics.set_line(1, false);
    pics.set_line(1, true);
    assert_eq!(pics.acknowledge(), 0x41);
    assert_eq!(register(&mut pics, MASTER, true), 2, "automatic EOI is off");
    pics.write(MASTER, 0x12); // single, no ICW4
    pics.write(MASTER + 1, 0x50);
    pics.write(MASTER + 1, 0x0f);
    assert_eq!(pics.read(MASTER + 1), 0x0f);
}
